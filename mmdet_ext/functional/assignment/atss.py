"""Adaptive training sample selection (ATSS), and its cost-based form (DDOD).

1. Of each pyramid level, the priors whose centres are nearest to a box's centre are the box's
   candidates.
2. Measure how well the box fits each candidate: by IoU, or by a given affinity.
3. The box's threshold is the mean plus the standard deviation of these values.
4. Candidates at or above the threshold whose centre lies in the box are its positives.
5. A prior that several boxes claim goes to the box that fits it best.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from mmdet_ext.functional.assignment.assignment import Assignment, assign_nothing
from mmdet_ext.functional.assignment.claims import INSIDE_MARGIN, border_distance, resolve_claims
from mmdet_ext.functional.assignment.geometry import BatchGeometry, Predictions
from mmdet_ext.functional.assignment.grids import nearest_priors
from mmdet_ext.functional.boxes.overlap import box_centers, box_iou
from mmdet_ext.functional.numerics.precision import promote_half

__all__ = ['Affinity', 'atss_match', 'prediction_affinity', 'prior_affinity']

#: Measure of how well boxes fit candidates: (indices of priors (B, G, K), boxes (B, G, 4)) ->
#: (B, G, K).
Affinity = Callable[[Tensor, Tensor], Tensor]


def atss_match(
    geometry: BatchGeometry,
    topk: int = 9,
    affinity: Affinity | None = None,
    ignore_mask: Tensor | None = None,
) -> Assignment:
    r"""Assign anchors by adaptive training sample selection (ATSS).

    A candidate i of a box is positive if

    .. math:: q_i \ge m + s

    and its centre lies in the box, with :math:`q_i` the candidate's IoU with the box, and m and s
    the mean and the (unbiased) standard deviation of all candidates' IoUs; s is 0 for a single
    candidate. Only the candidates' IoUs are computed, without a loop over images or boxes.

    Args:
        geometry: priors as corners, level by level; half precision is computed in float32.
        topk: candidates of each level.
        affinity: measure used in place of the IoU (see `prior_affinity`, `prediction_affinity`).
        ignore_mask: (B, P) bool, True for priors in ignore regions: they come last as candidates
            and are ignored unless a box claims them nevertheless. None for none.

    Returns:
        Assignment: ``overlap`` is the IoU (or affinity) of a prior with its box.

    References:
        Zhang et al., Bridging the Gap Between Anchor-based and Anchor-free Detection via
        Adaptive Training Sample Selection, 2020, algorithm 1.
    """
    priors, gt_boxes = promote_half(geometry.priors.as_corners(), geometry.gt_boxes)
    images, boxes, total = geometry.shape
    if boxes == 0 or total == 0:
        return assign_nothing(geometry, gt_boxes, ignore_mask)

    # 1. The nearest priors of each level.
    centers = box_centers(priors)
    points = box_centers(gt_boxes).flatten(0, 1)
    levels = geometry.priors.sizes
    prior_valid = geometry.prior_valid
    grids = geometry.priors.grids
    candidate = nearest_priors(points, centers, levels, topk, grids, ignore_mask, prior_valid)
    candidate = candidate.view(images, boxes, -1)

    # 2. The fit of each candidate.
    if affinity is None:
        quality = box_iou(priors[candidate], gt_boxes[:, :, None])
    else:
        quality = affinity(candidate, gt_boxes)

    # 3. The threshold of each box.
    valid = None
    if prior_valid is not None:
        valid = prior_valid.gather(1, candidate.flatten(1)).view(candidate.shape)
    threshold = _mean_and_spread(quality, valid)

    # 4. Positives.
    x, y = centers[candidate].unbind(-1)
    positive = quality >= threshold[..., None]
    positive &= border_distance(gt_boxes, x, y) > INSIDE_MARGIN
    positive &= geometry.gt_valid[..., None]
    if valid is not None:
        positive &= valid

    # 5. One box per prior.
    unused = geometry.unused_priors(ignore_mask)
    return Assignment(*resolve_claims(candidate, quality, positive, total, unused))


def prior_affinity(
    geometry: BatchGeometry, measure: Callable[[Tensor, Tensor], Tensor]
) -> Affinity:
    """Return the affinity that measures anchors against boxes by another measure than the IoU.

    Args:
        geometry: priors as corners.
        measure: overlap of aligned boxes (N, 4) and (N, 4), anchors first: (N,).
    """
    priors = geometry.priors.as_corners()
    return lambda candidate, gt_boxes: _aligned(measure, priors[candidate], gt_boxes)


def prediction_affinity(
    geometry: BatchGeometry,
    predictions: Predictions,
    alpha: float,
    measure: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Affinity:
    r"""Return the affinity of the cost-based form: the fit of predictions, not of priors.

    .. math:: q = p^{1 - a} \, u^a

    with p the probability that a prior predicts for the box's label, u the IoU of its predicted
    box with the box, and a = ``alpha``.

    Args:
        geometry: labels of the ground truth.
        predictions: class scores and boxes.
        alpha: in [0, 1].
        measure: as for `prior_affinity`, in place of the IoU; predictions come first.

    References:
        Chen et al., Disentangle Your Dense Object Detector, 2021.
    """
    predicted_boxes, logits = predictions.as_boxes(), predictions.as_logits()

    def affinity(candidate: Tensor, gt_boxes: Tensor) -> Tensor:
        flat = candidate.flatten(1)[..., None]  # (B, G * K, 1)
        boxes = predicted_boxes.gather(1, flat.expand(-1, -1, 4)).unflatten(1, candidate.shape[1:])
        classes = logits.shape[-1]
        label = geometry.gt_labels.clamp(0, classes - 1)  # padding may hold any label
        label = label[..., None].expand_as(candidate).flatten(1)
        rows = logits.gather(1, flat.expand(-1, -1, classes))
        score = rows.gather(2, label[..., None]).view(candidate.shape).sigmoid()
        return score ** (1 - alpha) * _aligned(measure, boxes, gt_boxes) ** alpha

    return affinity


def _aligned(
    measure: Callable[[Tensor, Tensor], Tensor] | None, boxes: Tensor, gt_boxes: Tensor
) -> Tensor:
    """Measure boxes (B, G, K, 4) against their ground truth (B, G, 4), (B, G, K)."""
    if measure is None:
        return box_iou(boxes, gt_boxes[:, :, None])
    flat = gt_boxes[:, :, None].expand_as(boxes).reshape(-1, 4)
    return measure(boxes.reshape(-1, 4), flat).view(boxes.shape[:-1])


def _mean_and_spread(quality: Tensor, valid: Tensor | None) -> Tensor:
    """Return mean plus deviation (B, G) of the valid candidates' qualities (B, G, K)."""
    # Reduced over a leading dimension, in the order of a table of candidates x boxes, so that
    # sums are rounded as mmdet's are.
    table = quality.permute(2, 0, 1).contiguous()
    if valid is None or bool(valid.all()):
        return table.mean(0) + (table.std(0) if len(table) > 1 else 0.0)
    # In double precision, so that equal qualities have a spread of 0, however many there are.
    counted = valid.permute(2, 0, 1).double()
    number = counted.sum(0)
    mean = (table * counted).sum(0) / number
    spread = ((table - mean).square() * counted).sum(0) / (number - 1).clamp(min=1)
    return mean.to(quality.dtype) + spread.sqrt().to(quality.dtype)
