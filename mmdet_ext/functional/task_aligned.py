"""Task-aligned assignment: priors by their score and overlap together."""

from __future__ import annotations

import torch
from torch import Tensor

from mmdet_ext.functional import matching
from mmdet_ext.functional.boxes import box_centers, iou_of_planes, promote_half
from mmdet_ext.functional.dynamic_k import (
    PairwiseMeasure,
    inside,
    measured_pairs,
    rows_of,
)
from mmdet_ext.functional.matching import INSIDE_MARGIN, largest, mark_ignored, resolve_claims


def task_aligned_match(
    priors: Tensor,
    pred_boxes: Tensor,
    scores: Tensor,
    gt_boxes: Tensor,
    gt_labels: Tensor,
    gt_valid: Tensor,
    topk: int = 13,
    alpha: float = 1.0,
    beta: float = 6.0,
    prior_valid: Tensor | None = None,
    measure: PairwiseMeasure | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Task-aligned learning (TOOD): each box takes the priors of best alignment.

    .. math:: t = s^\alpha u^\beta

    with :math:`s` a prior's ``scores`` of the box's label and :math:`u` the IoU of its predicted
    box with the box. Of the ``topk`` priors of largest t, those above 0 whose centre lies in the
    box are its positives; a prior of several goes to that of the largest IoU.

    Args:
        priors: (P, 4) corners, px, shared by the images; their centres count.
        pred_boxes: (B, P, 4) corners, px; half precision is computed in float32.
        scores: (B, P, C) probabilities.
        gt_boxes: (B, G, 4) corners, px.
        gt_labels: (B, G) int64.
        gt_valid: (B, G) bool, False on padding.
        topk: candidates a box; 1 gives one-to-one assignment.
        alpha: exponent, at least 0.
        beta: exponent, at least 0.
        prior_valid: (B, P) bool, priors that take part; None is all.
        measure: used in place of the IoU.

    Returns:
        tuple: gt_index (B, P) int64, BACKGROUND (-1), and IGNORE (-2) where ``prior_valid`` is
        False, beside the index of a box; overlap (B, P) with it and alignment (B, P), 0 where
        there is none.

    References:
        Feng et al., TOOD: Task-aligned One-stage Object Detection, 2021, section 3.2, equation 6.
    """
    priors, pred_boxes, scores, gt_boxes = promote_half(priors, pred_boxes, scores, gt_boxes)
    images, boxes = gt_valid.shape
    total = len(priors)
    unused = None if prior_valid is None else ~prior_valid
    if boxes == 0 or total == 0:
        nothing = pred_boxes.new_zeros((images, total))
        claimed = torch.full(nothing.shape, matching.BACKGROUND, device=nothing.device)
        return mark_ignored(claimed, unused), nothing, nothing.clone()

    label_rows, row = gt_labels.clamp(0, scores.shape[-1] - 1).unique(return_inverse=True)
    label_scores = scores[..., label_rows].mT.contiguous()
    if prior_valid is not None:
        label_scores = label_scores * prior_valid[:, None]
    x1, y1, x2, y2 = pred_boxes.permute(2, 0, 1).contiguous()[:, :, None].unbind(0)
    planes = [x1, y1, x2, y2, (x2 - x1) * (y2 - y1)]
    k = min(topk, total)
    candidates, overlaps, alignments = [], [], []
    work: list[Tensor] = []
    for start, stop in matching.chunks(boxes, images * total):
        part = slice(start, stop)
        if not work or work[0].shape[1] != stop - start:
            work = list(x1.new_empty((5, images, stop - start, total)))
        if measure is None:
            overlap = iou_of_planes(planes, gt_boxes[:, part, :, None].unbind(2), work=work[:3])
        else:
            overlap = measured_pairs(measure, gt_boxes[:, part], pred_boxes)
        score = rows_of(label_scores, row[:, part], out=work[3])
        alignment = power_of(overlap, beta, out=work[4])
        alignment.mul_(score if alpha == 1 else score.pow_(alpha))
        candidate = largest(alignment.flatten(0, 1), k).view(images, -1, k)
        candidates.append(candidate)
        overlaps.append(overlap.gather(2, candidate))
        alignments.append(alignment.gather(2, candidate))
    candidate, overlap, alignment = (
        torch.cat(part, 1) for part in (candidates, overlaps, alignments)
    )
    x, y = box_centers(priors)[candidate].unbind(-1)
    positive = (alignment > 0) & (inside(gt_boxes, x, y) > INSIDE_MARGIN) & gt_valid[..., None]
    gt_index, best = resolve_claims(candidate, overlap, positive, total, unused)
    # The alignment with the box that won.
    winner = gt_index.gather(1, candidate.flatten(1)).view_as(candidate)
    won = positive & (winner == torch.arange(boxes, device=winner.device)[:, None])
    metric = overlap.new_zeros((images, total + 1))
    metric.scatter_(1, candidate.where(won, total).flatten(1), alignment.flatten(1))
    return gt_index, best, metric[:, :total]


def power_of(value: Tensor, exponent: float, out: Tensor) -> Tensor:
    """value**exponent, by products for small whole exponents: a power takes ten times as long."""
    if exponent != int(exponent) or not 2 <= exponent <= 8:
        return torch.pow(value, exponent, out=out)
    half = int(exponent) // 2
    power = out.copy_(value) if half == 1 else power_of(value, half, out)
    power.square_()
    return power.mul_(value) if exponent % 2 else power
