"""Assignment of a drawn scene by each assigner, with the predictions of a half-trained network.

The box predicted at a prior lies halfway between a box around the prior and the nearest ground
truth. The probability of that ground truth's class grows with the IoU of the two.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmdet_ext import registry
from mmdet_ext.catalog.case import Case
from mmdet_ext.catalog.scenes import boxes_about, priors_of_kind
from mmdet_ext.functional.assignment.geometry import BatchGeometry, Predictions, Priors
from mmdet_ext.functional.boxes.overlap import box_iou
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
    priors = priors_of_kind(case.priors, width, height, scale=4.0)
    geometry = BatchGeometry.from_lists(priors, [boxes], [labels])
    registry.TASK_UTILS.import_from_location()
    assigner = registry.TASK_UTILS.get(case.name)(**case.options)
    predictions = half_trained(priors, boxes, labels, num_classes) if case.predicts else None
    (index,) = assigner.match(geometry, predictions).gt_index
    levels = zip(*(part.split(priors.sizes) for part in (priors.centers, index)), strict=True)
    return ImageAssignment(
        title=case.name,
        boxes=boxes.numpy(),
        levels=tuple(LevelAssignment(c.numpy(), i.numpy()) for c, i in levels),
    )


def half_trained(priors: Priors, boxes: Tensor, labels: Tensor, num_classes: int) -> Predictions:
    """Predict as a half-trained network does.

    Args:
        priors: P priors; the box around a point reaches two strides to each side.
        boxes: (G, 4) ground truth, corners, px.
        labels: (G,) int64 in [0, num_classes).
        num_classes: number of classes.

    Returns:
        Predictions: boxes and probabilities of one image.
    """
    own, centers = boxes_about(priors, reach=2.0), priors.centers
    gap = torch.cat([centers[:, None] - boxes[:, :2], boxes[:, 2:] - centers[:, None]], 2).amin(2)
    nearest = gap.argmax(1)
    found = torch.lerp(own, boxes[nearest], 0.5)
    fit = box_iou(found, boxes[nearest])
    scores = torch.full((len(centers), num_classes), 0.05)
    scores[torch.arange(len(centers)), labels[nearest]] = 0.05 + 0.9 * fit
    return Predictions(boxes=found[None], probabilities=scores[None])
