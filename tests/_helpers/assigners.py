"""Inputs for tests of assigners and of their rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.registry import TASK_UTILS
from torch import Tensor

from mmdet_ext.catalog.case import Case
from mmdet_ext.catalog.scenes import boxes_about, priors_of_kind
from mmdet_ext.catalog.synthetic import random_boxes
from mmdet_ext.detection.assigners.base import BatchAssigner
from mmdet_ext.functional.assignment.assignment import Assignment
from mmdet_ext.functional.assignment.geometry import BatchGeometry, Predictions, Priors

#: Number of classes of the predictions here.
CLASSES = 5


def geometry_of(
    priors: Priors, boxes: Tensor, valid: Tensor | None = None, **more: Any
) -> BatchGeometry:
    """Return the geometry of boxes (B, G, 4) with labels 0, all valid unless a mask says not."""
    valid = torch.ones(boxes.shape[:2], dtype=torch.bool) if valid is None else valid
    labels = torch.zeros(boxes.shape[:2], dtype=torch.int64)
    return BatchGeometry(priors, boxes, labels, valid, **more)


def with_area(boxes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Leave out boxes without area, to which mmdet gives priors and our assigners do not."""
    sized = (boxes[:, 2:] > boxes[:, :2]).all(1)
    return boxes[sized], labels[sized]


def indices(result: Assignment) -> tuple[Tensor, Tensor]:
    """Return the indices and overlaps (B, P) of an assignment."""
    return result.gt_index, result.overlap


def build(case: Case, scope: str = 'mmdet_ext') -> BatchAssigner:
    """Build the assigner of a case, ours or mmdet's."""
    return TASK_UTILS.build({'type': f'{scope}.{case.name}', **case.options})


def random_batch(case: Case, counts: Sequence[int], seed: int = 0) -> BatchGeometry:
    """Return random boxes of images, as many as ``counts``, on the priors of a case."""
    generator = torch.Generator().manual_seed(seed)
    return BatchGeometry.from_lists(
        priors_of_kind(case.priors),
        [random_boxes(generator, count) for count in counts],
        [torch.randint(CLASSES, (count,), generator=generator) for count in counts],
    )


def random_predictions(batch: BatchGeometry, seed: int = 1) -> Predictions:
    """Return boxes of all sizes about the priors, and probabilities.

    They depend on the priors alone, so that other ground truth does not change them.
    """
    generator = torch.Generator().manual_seed(seed)
    images, _, total = batch.shape
    corners = boxes_about(batch.priors)
    center, side = batch.priors.centers, corners[:, 2:] - corners[:, :2]
    side = side * (2 * torch.rand(images, total, 2, generator=generator) - 0.5).exp()
    boxes = torch.cat([center - side / 2, center + side / 2], 2)
    scores = torch.rand(images, total, CLASSES, generator=generator)
    return Predictions(boxes=boxes, probabilities=scores)
