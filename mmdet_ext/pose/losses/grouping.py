"""Losses of tags, and of tags with heatmaps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmdet_ext.functional.numerics.checks import check_number, check_one_of, check_that
from mmdet_ext.functional.pose.grouping import (
    GroupingLoss,
    GroupingNorm,
    TagDistance,
    grouping_loss,
)
from mmdet_ext.registry import MODELS

#: Width of the push in MMPose, whose exponent has no 1/2.
MMPOSE_SIGMA = math.sqrt(0.5)


def stack_indices(indices: Sequence[Tensor] | Tensor) -> tuple[Tensor, Tensor]:
    """Join the indices of images with different numbers of people.

    Args:
        indices: cell y * W + x of each joint, and whether it counts, (N_i, K, 2) per image, or
            (B, N, K, 2).

    Returns:
        tuple: cells, (B, N, K), int64, and whether they count, (B, N, K), bool; False on padding.

    Raises:
        ValueError: for another shape.
    """
    images = list(indices)
    fits = bool(images) and all(each.dim() == 3 and each.shape[2] == 2 for each in images)
    shapes = [tuple(each.shape) for each in images]
    check_that(
        fits and len({each.shape[1] for each in images}) == 1,
        'keypoint_indices',
        shapes,
        '(N, K, 2) for each image, with one K',
    )
    people = torch.nn.utils.rnn.pad_sequence(images, batch_first=True)
    return people[..., 0].long(), people[..., 1] > 0


@MODELS.register_module()
class AssociativeEmbeddingLoss(nn.Module):
    r"""Pull the tags of each person's joints together, and those of people apart.

    It is MMPose's loss of this name, for all people of a batch at once, with tags of several
    dimensions compared as vectors. MMPose pushes each dimension alone, so that people who differ in
    one dimension are still pushed in all others, and a loss of T dimensions never falls below
    T - 1 times its least value; ``tag_distance='per_dimension'`` does the same. Formula:
    `grouping_loss`.

    Args:
        loss_weight: factor on both parts, at least 0.
        push_loss_factor: factor on the push, at least 0.
        normalization: divisors of the sums: 'mmpose', 'paper' or 'notes'.
        tag_distance: 'vector' or 'per_dimension'.
        sigma: width of the push, above 0. MMPose's is the root of 1/2.

    Raises:
        ValueError: for an option out of its range, and for cells outside the maps (on a CPU).
    """

    def __init__(
        self,
        loss_weight: float = 1.0,
        push_loss_factor: float = 0.5,
        normalization: GroupingNorm = 'mmpose',
        tag_distance: TagDistance = 'vector',
        sigma: float = MMPOSE_SIGMA,
    ) -> None:
        super().__init__()
        check_number('loss_weight', loss_weight, least=0, finite=True)
        check_number('push_loss_factor', push_loss_factor, least=0, finite=True)
        check_one_of('normalization', normalization, GroupingNorm)
        check_one_of('tag_distance', tag_distance, TagDistance)
        check_number('sigma', sigma, above=0, finite=True)
        self.loss_weight = loss_weight
        self.push_loss_factor = push_loss_factor
        self.normalization: GroupingNorm = normalization
        self.tag_distance: TagDistance = tag_distance
        self.sigma = sigma

    def per_image(self, tags: Tensor, keypoint_indices: Sequence[Tensor] | Tensor) -> GroupingLoss:
        """Compute pull and push of each image, (B,), without factors."""
        check_that(
            len(tags) == len(keypoint_indices),
            'keypoint_indices',
            len(keypoint_indices),
            f'of {len(tags)} images, as the tags are',
        )
        if not len(tags):
            return GroupingLoss(tags.flatten(1).sum(1), tags.flatten(1).sum(1))
        cells, visible = stack_indices(keypoint_indices)
        return grouping_loss(
            tags,
            cells,
            visible,
            normalization=self.normalization,
            distance=self.tag_distance,
            sigma=self.sigma,
        )

    def forward(
        self, tags: Tensor, keypoint_indices: Sequence[Tensor] | Tensor
    ) -> tuple[Tensor, Tensor]:
        """Compute pull and push, summed over the images of a batch.

        Args:
            tags: maps of tags, (B, T * K, H, W), all K joints of the first dimension first.
            keypoint_indices: cell y * W + x of each joint, and whether it counts, (N_i, K, 2) per
                image, or (B, N, K, 2).

        Returns:
            tuple: two scalars; 0 with a graph where no joint counts.

        Raises:
            ValueError: for shapes that do not fit, or cells outside the maps (on a CPU).
        """
        pull, push = self.per_image(tags, keypoint_indices)
        push_weight = self.loss_weight * self.push_loss_factor
        return pull.sum() * self.loss_weight, push.sum() * push_weight

    def extra_repr(self) -> str:
        """Return the options, as printed with a model."""
        return (
            f'loss_weight={self.loss_weight}, push_loss_factor={self.push_loss_factor}, '
            f'normalization={self.normalization!r}, tag_distance={self.tag_distance!r}, '
            f'sigma={self.sigma:g}'
        )


@MODELS.register_module()
class HeatmapGroupingLoss(nn.Module):
    r"""Loss of heatmaps and tags in one number.

    .. math:: L = w_g (L_{pull} + L_{push}) + w_d L_{detection}

    with :math:`w_g` = 0.001 and :math:`w_d` = 0.999 as usual. Both parts are means over the images
    of a batch.

    Args:
        grouping_weight: :math:`w_g`, at least 0.
        detection_weight: :math:`w_d`, at least 0.
        heatmap_loss: options of the loss of heatmaps, in the call of KeypointHeatmapLoss; None for
            that loss.
        normalization: divisors of the grouping loss, see `grouping_loss`.
        tag_distance: as in AssociativeEmbeddingLoss.
        sigma: width of the push, above 0.

    Raises:
        ValueError: for an option out of its range.

    References:
        Newell et al., Associative Embedding: End-to-End Learning for Joint Detection and Grouping,
        2017, section 3.2, and 4.1 for the weight of the grouping loss.
    """

    def __init__(
        self,
        grouping_weight: float = 0.001,
        detection_weight: float = 0.999,
        heatmap_loss: dict[str, Any] | None = None,
        normalization: GroupingNorm = 'paper',
        tag_distance: TagDistance = 'vector',
        sigma: float = 1.0,
    ) -> None:
        super().__init__()
        check_number('grouping_weight', grouping_weight, least=0, finite=True)
        check_number('detection_weight', detection_weight, least=0, finite=True)
        self.grouping_weight = grouping_weight
        self.detection_weight = detection_weight
        self.heatmap_loss = MODELS.build(heatmap_loss or {'type': 'mmdet_ext.KeypointHeatmapLoss'})
        self.grouping = AssociativeEmbeddingLoss(1.0, 1.0, normalization, tag_distance, sigma)

    def parts(
        self,
        output: Tensor,
        target: Tensor,
        tags: Tensor,
        keypoint_indices: Sequence[Tensor] | Tensor,
        target_weights: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Compute the weighted parts by name: 'loss_kpt', 'loss_pull' and 'loss_push'."""
        detection = self.heatmap_loss(output, target, target_weights, mask)
        pull, push = self.grouping.per_image(tags, keypoint_indices)
        share = self.grouping_weight / max(len(tags), 1)
        return {
            'loss_kpt': self.detection_weight * detection,
            'loss_pull': share * pull.sum(),
            'loss_push': share * push.sum(),
        }

    def forward(
        self,
        output: Tensor,
        target: Tensor,
        tags: Tensor,
        keypoint_indices: Sequence[Tensor] | Tensor,
        target_weights: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Compute the loss of a batch.

        Args:
            output: heatmaps, (B, K, H, W).
            target: their targets, (B, K, H, W).
            tags: maps of tags, (B, T * K, H, W).
            keypoint_indices: cell y * W + x of each joint, and whether it counts, (N_i, K, 2) per
                image, or (B, N, K, 2).
            target_weights: as the loss of heatmaps takes them.
            mask: 0 where pixels of the heatmaps do not count, (B, K, H, W) or (B, 1, H, W).

        Returns:
            Tensor: a scalar.

        Raises:
            ValueError: for shapes that do not fit.
        """
        parts = self.parts(output, target, tags, keypoint_indices, target_weights, mask)
        return torch.stack(list(parts.values())).sum()

    def extra_repr(self) -> str:
        """Return the options, as printed with a model."""
        return f'grouping_weight={self.grouping_weight}, detection_weight={self.detection_weight}'
