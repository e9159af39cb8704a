"""The assigner's two faces: the batch form, and stock's, one image at a time."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Literal

import torch
from mmdet.models.task_modules.assigners import AssignResult, BaseAssigner, BboxOverlaps2D
from mmdet.registry import TASK_UTILS as MMDET_TASK_UTILS
from torch import Tensor

from mmdet_ext.detection import host
from mmdet_ext.functional.assignment.assignment import Assignment
from mmdet_ext.functional.assignment.claims import ignored_priors_mask
from mmdet_ext.functional.assignment.geometry import BatchGeometry, Predictions


def build_calculator(config: dict[str, Any] | None) -> Any:
    """The overlap measure of a config; None for the plain IoU, which is computed here.

    Args:
        config: of an overlap measure with stock's call; None is the IoU.

    Raises:
        ValueError: if it is no config.
    """
    if config is not None and not isinstance(config, dict):
        raise ValueError(
            "iou_calculator must be None or a config, such as dict(type='BboxOverlaps2D'), got "
            f'{config!r}'
        )
    if config is None or (
        set(config) == {'type'}
        and config['type'] in ('BboxOverlaps2D', 'mmdet.BboxOverlaps2D', BboxOverlaps2D)
    ):
        return None
    return MMDET_TASK_UTILS.build(config)


def aligned_overlap(
    calculator: Any, boxes: Tensor, others: Tensor, repeated: Literal[0, 1]
) -> Tensor:
    """Overlaps (N,) of pairs of boxes, by any calculator of stock's call.

    Stock's ``BboxOverlaps2D_GLIP`` gives all pairs whatever is asked of it. Such a calculator is
    called once for each run of pairs with the same ground truth.

    Args:
        calculator: called with ``boxes`` and ``others``, in this order.
        boxes: (N, 4) corners, px.
        others: (N, 4) corners, px.
        repeated: which of the two holds ground truth, each box of it many times in a row.
    """
    overlap: Tensor
    if _measures_aligned(calculator, boxes[:1], others[:1]):
        overlap = calculator(boxes, others, is_aligned=True)
        return overlap
    truth = (boxes, others)[repeated]
    ends = (truth[1:] != truth[:-1]).any(1).nonzero()[:, 0] + 1
    runs = zip(*(part.tensor_split(ends.tolist()) for part in (boxes, others)), strict=True)
    parts = [
        calculator(one[:1], other) if repeated == 0 else calculator(one, other[:1])
        for one, other in runs
    ]
    return torch.cat([part.flatten() for part in parts])


def _measures_aligned(calculator: Any, box: Tensor, other: Tensor) -> bool:
    """Whether a calculator knows ``is_aligned``, told by what it gives for one pair."""
    try:
        overlap: Tensor = calculator(box, other, is_aligned=True)
    except TypeError:
        return False
    return overlap.dim() == 1


def ignored_mask(
    geometry: BatchGeometry, threshold: float, of_priors: bool = True
) -> Tensor | None:
    """Priors (B, P) in ignore regions, as `ignored_priors_mask`; None where there are no regions.

    Args:
        geometry: the batch.
        threshold: share above which a prior is ignored; from 0 down for never.
        of_priors: whether the share is of the prior's area, or of the region's.
    """
    boxes, valid = geometry.ignore_boxes, geometry.ignore_valid
    if threshold <= 0 or boxes is None or valid is None or boxes.numel() == 0:
        return None
    return ignored_priors_mask(geometry.priors, boxes, valid, threshold, of_priors)


def needed_predictions(assigner: object, predictions: Predictions | None) -> tuple[Tensor, Tensor]:
    """Scores and boxes of the head.

    Raises:
        ValueError: if one is lacking.
    """
    scores = None if predictions is None else predictions.scores
    boxes = None if predictions is None else predictions.boxes
    if scores is None or boxes is None:
        lacks = ' and '.join(
            name for name, part in (('scores', scores), ('boxes', boxes)) if part is None
        )
        raise ValueError(
            f'{type(assigner).__name__} goes by what the head predicts, but got no {lacks}. Use it '
            'in a head that gives both (YOLOXHead, RTMDetHead, TOODHead)'
        )
    return scores, boxes


class BatchAssigner(BaseAssigner):  # type: ignore[misc]
    """An assigner that matches a whole batch at once. A subclass writes `match`.

    Attributes:
        needs_levels: whether the rule goes by pyramid level, so that a stock call must give
            ``num_level_priors``.
        unassigned_overlap: what stock's twin writes as the overlap of a prior without a box.
        nothing_overlap: likewise, in a picture in which no prior has a box; None is the same.
        own_arguments: names of what stock's heads pass beside instances; they reach `match`.
    """

    needs_levels: bool = False
    unassigned_overlap: float = 0.0
    nothing_overlap: float | None = None
    own_arguments: tuple[str, ...] = ()

    @abstractmethod
    def match(self, geometry: BatchGeometry, predictions: Predictions | None = None) -> Assignment:
        """Assign the priors of all images of the batch."""

    @torch.no_grad()
    def assign(self, *args: Any, **kwargs: Any) -> AssignResult:
        """Stock's form, for one image: the batch form on a batch of one.

        Args:
            *args: ``pred_instances, gt_instances[, gt_instances_ignore]``, or, as heads that
                know their levels call it, ``pred_instances, num_level_priors, gt_instances[,
                gt_instances_ignore]``; by position or by name.
            **kwargs: likewise.

        Returns:
            AssignResult: 1-based indices of boxes, 0 background, -1 ignore.

        Raises:
            TypeError: if an argument lacks, is unknown, or the rule needs ``num_level_priors``
                and the head gave none.
            ValueError: if ``num_level_priors`` do not sum to the number of priors.
        """
        name = type(self).__name__
        call = host.parse_assign_call(name, self.own_arguments, *args, **kwargs)
        if self.needs_levels and call.num_level_priors is None:
            raise TypeError(
                f'{name} goes by pyramid level, but this head calls it without num_level_priors. '
                'Use it in a head that gives them (ATSSHead, GFLHead, VFNetHead, DDODHead, ...)'
            )
        geometry = host.geometry_of_one(call)
        assignment = self.match(geometry, host.predictions_of_one(call), **call.own)
        overlap = self.unassigned_overlap
        if self.nothing_overlap is not None and not assignment.positive_mask.any():
            overlap = self.nothing_overlap
        return host.to_assign_result(assignment, geometry.gt_labels, overlap)
