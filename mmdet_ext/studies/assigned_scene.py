"""Assignment of a drawn scene by each assigner, with the predictions of a half-trained network.

The box predicted at a prior lies halfway between a box around the prior and the nearest ground
truth. The probability of that ground truth's class grows with the IoU of the two.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmdet_ext import registry
from mmdet_ext.catalog.case import Case
from mmdet_ext.catalog.scenes import pyramid_points, yolo_anchors
from mmdet_ext.catalog.synthetic import pyramid_anchors
from mmdet_ext.functional.assignment.geometry import BatchGeometry, Predictions
from mmdet_ext.functional.boxes.overlap import box_centers, box_iou
from mmdet_ext.plots.assignments import ImageAssignment, LevelAssignment


def assign_scene(
    case: Case,
    boxes: Tensor,
    labels: Tensor,
    *,
    width: int,
    height: int,
    num_classes: int,
) -> ImageAssignment:
    """Assign the priors of an image by the assigner of a case.

    Args:
        case: an assigner, its options and its kind of priors.
        boxes: (G, 4) ground truth, corners, px.
        labels: (G,) int64 in [0, num_classes).
        width: width of the image, px.
        height: height of the image, px.
        num_classes: number of classes of the predictions.
    """
    priors, sizes = _priors(case.priors, width, height)
    geometry = BatchGeometry.from_lists(priors, sizes, [boxes], [labels])
    points = case.priors in ('points', 'heatmap')
    centers = priors[:, :2] if points else box_centers(priors)
    registry.TASK_UTILS.import_from_location()
    assigner = registry.TASK_UTILS.get(case.name)(**case.options)
    predictions = None
    if case.predicts:
        sides = 4 * priors[:, 2:] if points else priors[:, 2:] - priors[:, :2]
        scores, found = half_trained(centers, sides, boxes, labels, num_classes)
        if case.name == 'DynamicSoftLabelAssigner':
            scores = scores.logit()  # RTMDet's head gives it logits
        predictions = Predictions(scores[None], found[None])
    (index,) = assigner.match(geometry, predictions).gt_index
    levels = zip(centers.split(sizes), index.split(sizes), strict=True)
    return ImageAssignment(
        title=case.name,
        boxes=boxes.numpy(),
        levels=tuple(LevelAssignment(c.numpy(), i.numpy()) for c, i in levels),
    )


def _priors(kind: str, width: int, height: int) -> tuple[Tensor, list[int]]:
    """Make the priors (P, 4) of a kind, and their number per level."""
    if kind == 'points':
        return pyramid_points(width, height)
    if kind == 'heatmap':
        return pyramid_points(width, height, strides=(4,))
    if kind == 'cells':
        return yolo_anchors(width, height)
    return pyramid_anchors(width, height, scale=4.0)


def half_trained(
    centers: Tensor, sides: Tensor, boxes: Tensor, labels: Tensor, num_classes: int
) -> tuple[Tensor, Tensor]:
    """Predict as a half-trained network does.

    Args:
        centers: (P, 2) centres of the priors, px.
        sides: (P, 2) width and height of the box around each prior, px.
        boxes: (G, 4) ground truth, corners, px.
        labels: (G,) int64 in [0, num_classes).
        num_classes: number of classes.

    Returns:
        tuple: probabilities (P, num_classes), and boxes (P, 4), corners, px.
    """
    own = torch.cat([centers - sides / 2, centers + sides / 2], 1)
    gap = torch.cat([centers[:, None] - boxes[:, :2], boxes[:, 2:] - centers[:, None]], 2).amin(2)
    nearest = gap.argmax(1)
    found = torch.lerp(own, boxes[nearest], 0.5)
    fit = box_iou(found, boxes[nearest])
    scores = torch.full((len(centers), num_classes), 0.05)
    scores[torch.arange(len(centers)), labels[nearest]] = 0.05 + 0.9 * fit
    return scores, found
