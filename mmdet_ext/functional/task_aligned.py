"""Task-aligned assignment: priors by their score and overlap together."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from mmdet_ext.functional import matching
from mmdet_ext.functional.boxes import box_centers, box_iou, promote_half
from mmdet_ext.functional.dynamic_k import (
    PairwiseMeasure,
    inside,
    measured_pairs,
    rows_of,
)
from mmdet_ext.functional.matching import INSIDE_MARGIN, largest, mark_ignored, resolve_claims
from mmdet_ext.functional.prior_blocks import BLOCK, PriorBlocks, pairs_at_a_time


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
    # (rows, B, P), by a transpose of two dimensions, which is many times as fast as one of three.
    columns = scores.flatten(0, 1).index_select(1, label_rows)
    label_scores = columns.T.contiguous().view(-1, images, total)
    if prior_valid is not None:
        label_scores = label_scores * prior_valid
    k = min(topk, total)
    if measure is None and beta == 0:
        measure = _pairwise_iou  # what does not overlap counts too
    if measure is None:
        ranked = _ranked_by_blocks(label_scores, pred_boxes, gt_boxes, row, k, alpha, beta)
    else:
        ranked = _ranked_densely(label_scores, pred_boxes, gt_boxes, row, k, alpha, beta, measure)
    candidate, overlap, alignment = ranked
    x, y = box_centers(priors)[candidate].unbind(-1)
    positive = (alignment > 0) & (inside(gt_boxes, x, y) > INSIDE_MARGIN) & gt_valid[..., None]
    if prior_valid is not None:  # a score of 0 to the power 0 counts
        positive &= prior_valid.gather(1, candidate.flatten(1)).view_as(candidate)
    gt_index, best = resolve_claims(candidate, overlap, positive, total, unused)
    # The alignment with the box that won.
    winner = gt_index.gather(1, candidate.flatten(1)).view_as(candidate)
    won = positive & (winner == torch.arange(boxes, device=winner.device)[:, None])
    metric = overlap.new_zeros((images, total + 1))
    metric.scatter_(1, candidate.where(won, total).flatten(1), alignment.flatten(1))
    return gt_index, best, metric[:, :total]


#: Candidates (B, G, k), their overlaps and their alignments.
Ranked = tuple[Tensor, Tensor, Tensor]


def _ranked_by_blocks(
    label_scores: Tensor,
    pred_boxes: Tensor,
    gt_boxes: Tensor,
    label_row: Tensor,
    k: int,
    alpha: float,
    beta: float,
) -> Ranked:
    """The ``k`` priors of best alignment, from those whose predicted boxes can overlap a box.

    Where fewer are above 0, others stand with an alignment of 0.

    Args:
        label_scores: (rows, B, P), a row a label.
        pred_boxes: (B, P, 4).
        gt_boxes: (B, G, 4).
        label_row: (B, G), the row of each box's label.
        k: how many.
        alpha: exponent of the score.
        beta: exponent of the overlap, above 0.
    """
    images, boxes = label_row.shape
    blocks = PriorBlocks.of(pred_boxes)
    total = label_scores.shape[2]
    missing = -total % BLOCK
    scores = pad(label_scores, (0, missing)) if missing else label_scores
    scores = scores.view(-1, BLOCK)
    flat = gt_boxes.flatten(0, 1)
    image = torch.arange(images, device=flat.device).repeat_interleave(boxes)
    score_row = (label_row.flatten() * images + image) * blocks.count

    def measured(row: Tensor, block: Tensor) -> tuple[Tensor, Tensor]:
        overlap = blocks.iou(flat[row], blocks.place(image[row], block))
        alignment = power_of(overlap, beta, torch.empty_like(overlap))
        score = scores.index_select(0, score_row[row] + block)
        return overlap, alignment.mul_(score if alpha == 1 else score.pow_(alpha))

    # The k best of a box lie in the k blocks of best peak; only these are measured once more.
    pairs = [(r, b, measured(r, b)[1].amax(1)) for r, b in blocks.touched(flat, image)]
    shape = (images, boxes, k)
    if not pairs:
        nothing = flat.new_zeros(shape)
        return nothing.long(), nothing, nothing.clone()
    row, block, peak = (torch.cat(part) for part in zip(*pairs, strict=True))
    best, pair = _best_blocks(peak, row, len(flat), k)
    parts = []
    lane = torch.arange(BLOCK, device=flat.device)
    step = max(1, pairs_at_a_time() // k)
    for start in range(0, len(flat), step):
        part = pair[start : start + step]
        overlap, alignment = measured(row[part.flatten()], block[part.flatten()])
        prior = block[part.flatten(), None] * BLOCK + lane
        absent = (best[start : start + step].reshape(-1, 1) < 0) | (prior >= total)
        tables = [t.view(len(part), -1) for t in (alignment, overlap, prior)]
        value, place = tables[0].masked_fill_(absent.view(len(part), -1), -1.0).topk(k)
        parts.append((tables[2].gather(1, place), tables[1].gather(1, place), value))
    return tuple(torch.cat(part).view(shape) for part in zip(*parts, strict=True))  # type: ignore


def _best_blocks(peak: Tensor, place: Tensor, rows: int, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` blocks of largest peak of each row, from pairs that stand row by row.

    Args:
        peak: (M,).
        place: (M,), the row of each pair, ascending.
        rows: how many.
        k: how many blocks a row; with fewer, the missing have the peak -1.

    Returns:
        tuple: peaks (rows, k) and numbers of pairs (rows, k).
    """
    count = place.bincount(minlength=rows)
    first = count.cumsum(0) - count
    pair = torch.arange(len(peak), device=peak.device)
    width = max(k, int(count.max()))
    table = peak.new_full((rows, width), -1.0)
    table[place, pair - first[place]] = peak
    value, column = table.topk(k)
    return value, (first[:, None] + column).clamp(max=len(peak) - 1)


def _pairwise_iou(boxes: Tensor, predicted: Tensor) -> Tensor:
    return box_iou(boxes[:, None], predicted)


def _ranked_densely(
    label_scores: Tensor,
    pred_boxes: Tensor,
    gt_boxes: Tensor,
    label_row: Tensor,
    k: int,
    alpha: float,
    beta: float,
    measure: PairwiseMeasure,
) -> Ranked:
    """As `_ranked_by_blocks`, by a measure of all pairs."""
    images, boxes = label_row.shape
    label_scores = label_scores.transpose(0, 1)
    parts = []
    for start, stop in matching.chunks(boxes, images * pred_boxes.shape[1]):
        part = slice(start, stop)
        overlap = measured_pairs(measure, gt_boxes[:, part], pred_boxes)
        alignment = power_of(overlap, beta, torch.empty_like(overlap))
        alignment.mul_(rows_of(label_scores, label_row[:, part]).pow_(alpha))
        candidate = largest(alignment.flatten(0, 1), k).view(images, -1, k)
        parts.append((candidate, overlap.gather(2, candidate), alignment.gather(2, candidate)))
    candidate, overlap, alignment = (torch.cat(tables, 1) for tables in zip(*parts, strict=True))
    return candidate, overlap, alignment


def power_of(value: Tensor, exponent: float, out: Tensor) -> Tensor:
    """value**exponent, by products for small whole exponents: a power takes ten times as long."""
    if exponent != int(exponent) or not 2 <= exponent <= 8:
        return torch.pow(value, exponent, out=out)
    half = int(exponent) // 2
    power = out.copy_(value) if half == 1 else power_of(value, half, out)
    power.square_()
    return power.mul_(value) if exponent % 2 else power
