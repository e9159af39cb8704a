"""Output of every assigner: the ground-truth box of each prior."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmdet_ext.functional.assignment.claims import BACKGROUND, IGNORE, mark_ignored
from mmdet_ext.functional.assignment.geometry import BatchGeometry

__all__ = ['Assignment', 'assign_nothing']


@dataclass(frozen=True, eq=False)
class Assignment:
    """Ground-truth box that each prior of each image is to learn.

    Attributes:
        gt_index: (B, P) int64: index of the box, -1 for background, -2 for ignored priors.
        overlap: (B, P): how well prior and box fit, in the measure of the rule; 0 without a box.
        metric: (B, P): weight of a head's targets, such as the alignment of TOOD; 0 without a box.
            None where the rule has no such weight.

    Raises:
        ValueError: if the shapes differ.
    """

    gt_index: Tensor
    overlap: Tensor
    metric: Tensor | None = None

    def __post_init__(self) -> None:
        if self.gt_index.dim() != 2 or self.gt_index.shape != self.overlap.shape:
            raise ValueError(
                'gt_index and overlap must both be (B, P), got '
                f'{tuple(self.gt_index.shape)} and {tuple(self.overlap.shape)}'
            )
        if self.metric is not None and self.metric.shape != self.gt_index.shape:
            raise ValueError(
                f'metric must be of the shape of gt_index, {tuple(self.gt_index.shape)}, got '
                f'{tuple(self.metric.shape)}'
            )

    @property
    def positive_mask(self) -> Tensor:
        """(B, P) bool: the prior has a box."""
        return self.gt_index >= 0

    @property
    def ignore_mask(self) -> Tensor:
        """(B, P) bool: the prior counts neither as positive nor as background."""
        return self.gt_index == IGNORE

    def labels(self, gt_labels: Tensor) -> Tensor:
        """Return the label of each prior's box, (B, P) int64; -1 without a box.

        Args:
            gt_labels: (B, G) int64.
        """
        if gt_labels.shape[1] == 0:
            return torch.full_like(self.gt_index, BACKGROUND)
        picked = gt_labels.gather(1, self.gt_index.clamp(min=0))
        return picked.where(self.positive_mask, BACKGROUND)


def assign_nothing(
    geometry: BatchGeometry, like: Tensor, ignore_mask: Tensor | None = None
) -> Assignment:
    """Return the assignment of a batch without boxes or without priors: all background.

    Args:
        geometry: the batch. Priors that an image does not have are ignored.
        like: tensor with the dtype and device of the overlap.
        ignore_mask: (B, P) bool, further priors that are ignored; None for none.
    """
    images, _, total = geometry.shape
    gt_index = torch.full((images, total), BACKGROUND, device=like.device)
    gt_index = mark_ignored(gt_index, geometry.unused_priors(ignore_mask))
    return Assignment(gt_index, like.new_zeros((images, total)))
