"""Which boxes and priors belong together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mmdet_ext.functional.assignment.claims import (
    BACKGROUND,
    INSIDE_MARGIN,
    mark_ignored,
    resolve_claims,
)
from mmdet_ext.functional.assignment.grids import Grid, nearest_priors
from mmdet_ext.functional.boxes.overlap import box_centers, box_iou
from mmdet_ext.functional.numerics.precision import promote_half

#: How well a box fits a prior: (prior_index (B, G, K), gt_boxes (B, G, 4)) -> (B, G, K).
Affinity = Callable[[Tensor, Tensor], Tensor]


def atss_match(
    priors: Tensor,
    level_sizes: Sequence[int],
    gt_boxes: Tensor,
    gt_valid: Tensor,
    topk: int = 9,
    grids: Sequence[Grid | None] | None = None,
    ignore_mask: Tensor | None = None,
    affinity: Affinity | None = None,
    prior_valid: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Adaptive training sample selection (ATSS).

    For each box, the ``topk`` priors of each level whose centres are nearest to the box's centre
    are its candidates. With m and s the mean and the (unbiased) standard deviation of the
    candidates' IoUs, the candidates of IoU >= m + s whose centre lies in the box are its
    positives; of one candidate s is 0. A prior claimed by several boxes goes to that of the
    largest IoU.

    Only the candidates' IoUs are ever computed. Nothing loops over images or boxes.

    Args:
        priors: (P, 4) corners, px, level by level, shared by the images.
        level_sizes: priors of each level, summing to P.
        gt_boxes: (B, G, 4) corners, px; half precision is computed in float32.
        gt_valid: (B, G) bool, False on padding.
        topk: candidates a level.
        grids: `find_grid` of each level's centres, None to look for them here.
        ignore_mask: (B, P), True for priors in ignore regions: they come last as candidates and
            are IGNORE unless a box claims them all the same.
        affinity: used in place of the IoU.
        prior_valid: (B, P), False for priors that are no candidates at all, and IGNORE; None for
            none.

    Returns:
        tuple: gt_index (B, P) int64, BACKGROUND (-1) and IGNORE (-2) beside the index of a box;
        overlap (B, P), the affinity with that box, 0 where there is none.

    References:
        Zhang et al., Bridging the Gap Between Anchor-based and Anchor-free Detection via
        Adaptive Training Sample Selection, 2020, algorithm 1.
    """
    priors, gt_boxes = promote_half(priors, gt_boxes)
    images, boxes = gt_valid.shape
    total = priors.shape[0]
    if boxes == 0 or total == 0:
        claimed = torch.full((images, total), BACKGROUND, device=gt_boxes.device)
        claimed = mark_ignored(claimed, _either(ignore_mask, prior_valid))
        return claimed, gt_boxes.new_zeros((images, total))

    centers = box_centers(priors)
    points = box_centers(gt_boxes).flatten(0, 1)
    candidate = nearest_priors(points, centers, level_sizes, topk, grids, ignore_mask, prior_valid)
    candidate = candidate.view(images, boxes, -1)

    if affinity is None:
        quality = box_iou(priors[candidate], gt_boxes[:, :, None])
    else:
        quality = affinity(candidate, gt_boxes)
    valid = None
    if prior_valid is not None:
        valid = prior_valid.gather(1, candidate.flatten(1)).view(candidate.shape)
    threshold = _mean_and_spread(quality, valid)

    center = centers[candidate]
    inside = torch.cat(
        [center - gt_boxes[:, :, None, :2], gt_boxes[:, :, None, 2:] - center], dim=-1
    ).amin(-1)
    positive = (quality >= threshold[..., None]) & (inside > INSIDE_MARGIN)
    positive &= gt_valid[..., None]
    if valid is not None:
        positive &= valid
    return resolve_claims(candidate, quality, positive, total, _either(ignore_mask, prior_valid))


def _mean_and_spread(quality: Tensor, valid: Tensor | None) -> Tensor:
    """Mean plus deviation of the candidates' qualities (B, G, K), of those that are valid."""
    # Reduced over a leading dimension, as a table of candidates x boxes would be.
    table = quality.permute(2, 0, 1).contiguous()
    if valid is None or bool(valid.all()):
        return table.mean(0) + (table.std(0) if len(table) > 1 else 0.0)
    # In double precision: equal qualities have a spread of 0, however many there are.
    counted = valid.permute(2, 0, 1).double()
    number = counted.sum(0)
    mean = (table * counted).sum(0) / number
    spread = ((table - mean).square() * counted).sum(0) / (number - 1).clamp(min=1)
    return mean.to(quality.dtype) + spread.sqrt().to(quality.dtype)


def _either(ignore_mask: Tensor | None, prior_valid: Tensor | None) -> Tensor | None:
    """Priors that are ignored, or not there."""
    if prior_valid is None:
        return ignore_mask
    return ~prior_valid if ignore_mask is None else ignore_mask | ~prior_valid
