"""The result of label assignment, for a batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmdet_ext.functional.assignment.claims import BACKGROUND, IGNORE


@dataclass(frozen=True, eq=False)
class Assignment:
    """Which box each prior of each image is to learn.

    Attributes:
        gt_index: (B, P) int64: index of the box, -1 for background, -2 for "ignore".
        overlap: (B, P): how well prior and box fit, in the assigner's measure; 0 without a box.
        metric: (B, P), what a head weighs its targets by, such as the alignment of TOOD; 0 without
            a box. None where the rule has no such thing.

    Raises:
        ValueError: if they differ in shape.
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
        """(B, P) bool: the prior counts neither as a box's nor as background."""
        return self.gt_index == IGNORE

    def labels(self, gt_labels: Tensor) -> Tensor:
        """(B, P) int64: the label of each prior's box, -1 without one.

        Args:
            gt_labels: (B, G) int64.
        """
        if gt_labels.shape[1] == 0:
            return torch.full_like(self.gt_index, BACKGROUND)
        picked = gt_labels.gather(1, self.gt_index.clamp(min=0))
        return picked.where(self.positive_mask, BACKGROUND)
