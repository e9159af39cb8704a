"""The assigner's two faces: the batch form, and stock's, one image at a time."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from mmdet.models.task_modules.assigners import AssignResult, BaseAssigner

from mmdet_ext.detection import compat
from mmdet_ext.structures import Assignment, BatchGeometry, Predictions


class BatchAssigner(BaseAssigner):  # type: ignore[misc]
    """An assigner that matches a whole batch at once. A subclass writes `match`.

    Attributes:
        needs_levels: whether the rule goes by pyramid level, so that a stock call must give
            ``num_level_priors``.
        unassigned_overlap: what stock's twin writes as the overlap of a prior without a box.
        own_arguments: names of what stock's heads pass beside instances; they reach `match`.
    """

    needs_levels: bool = False
    unassigned_overlap: float = 0.0
    own_arguments: tuple[str, ...] = ()

    @abstractmethod
    def match(
        self, geometry: BatchGeometry, predictions: Predictions | None = None
    ) -> Assignment:
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
        call = compat.parse_assign_call(name, self.own_arguments, *args, **kwargs)
        if self.needs_levels and call.num_level_priors is None:
            raise TypeError(
                f'{name} goes by pyramid level, but this head calls it without num_level_priors. '
                'Use it in a head that gives them (ATSSHead, GFLHead, VFNetHead, DDODHead, ...)'
            )
        geometry = compat.geometry_of_one(call)
        assignment = self.match(geometry, compat.predictions_of_one(call), **call.own)
        return compat.to_assign_result(assignment, geometry.gt_labels, self.unassigned_overlap)
