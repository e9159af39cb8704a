"""Loss of the embeddings by which CornerNet pairs its corners."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmdet_ext.functional.numerics.checks import check_number
from mmdet_ext.functional.pose.corners import corner_grouping_loss
from mmdet_ext.registry import MODELS


@MODELS.register_module()
class CornerGroupingLoss(nn.Module):
    r"""Pull the embeddings of an object's corners together, and those of objects apart.

    ``loss_embedding`` of mmdet's CornerHead and CentripetalHead, in place of
    AssociativeEmbeddingLoss. It is right for embeddings of several dimensions, of which mmdet takes
    each for an object of its own, and it computes all objects of a batch together. Formula:
    `corner_grouping_loss`.

    Args:
        pull_weight: factor on the pull, at least 0.
        push_weight: factor on the push, at least 0.
        margin: distance, above which objects are not pushed, at least 0.

    Raises:
        ValueError: for an option out of its range, and for corners outside the maps.
    """

    def __init__(
        self, pull_weight: float = 0.25, push_weight: float = 0.25, margin: float = 1.0
    ) -> None:
        super().__init__()
        check_number('pull_weight', pull_weight, least=0, finite=True)
        check_number('push_weight', push_weight, least=0, finite=True)
        check_number('margin', margin, least=0, finite=True)
        self.pull_weight, self.push_weight, self.margin = pull_weight, push_weight, margin

    def forward(
        self, pred: Tensor, target: Tensor, match: Sequence[Sequence[Any]]
    ) -> tuple[Tensor, Tensor]:
        """Compute pull and push, summed over the images of a batch.

        Args:
            pred: embeddings of upper left corners, (B, T, H, W).
            target: embeddings of lower right corners, (B, T, H, W).
            match: per image, ``[[row, column], [row, column]]`` of both corners of each object.

        Returns:
            tuple: two scalars.

        Raises:
            ValueError: if ``match`` has another number of images, or a corner lies outside.
        """
        if len(match) != len(pred):
            raise ValueError(f'match must have one list per image, {len(pred)}, got {len(match)}')
        objects = max(map(len, match), default=0)
        corners = torch.zeros(len(match), objects, 2, 2, dtype=torch.int64)
        valid = torch.zeros(len(match), objects, dtype=torch.bool)
        for image, found in enumerate(match):
            if len(found):
                corners[image, : len(found)] = torch.as_tensor(found)
                valid[image, : len(found)] = True
        pull, push = corner_grouping_loss(
            pred, target, corners.to(pred.device), valid.to(pred.device), self.margin
        )
        return self.pull_weight * pull.sum(), self.push_weight * push.sum()

    def extra_repr(self) -> str:
        """Return the options, as printed with a model."""
        return (
            f'pull_weight={self.pull_weight}, push_weight={self.push_weight}, margin={self.margin}'
        )
