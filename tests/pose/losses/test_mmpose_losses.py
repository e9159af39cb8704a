"""Losses of poses beside those of MMPose."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mmdet_ext.catalog.pose_cases import heatmap_inputs, tag_inputs
from mmdet_ext.pose.losses.grouping import AssociativeEmbeddingLoss, HeatmapGroupingLoss
from mmdet_ext.pose.losses.heatmaps import KeypointHeatmapLoss

pytest.importorskip('mmpose', reason='MMPose is absent')

from mmpose.models import losses as stock

CASES, BLOCKS = 500, 5


def values_of(loss: Any, tags: torch.Tensor, indices: Any) -> list[torch.Tensor]:
    leaf = tags.clone().requires_grad_()
    pull, push = loss(leaf, indices)
    (gradient,) = torch.autograd.grad(pull + push, leaf, allow_unused=True)
    gradient = torch.zeros_like(leaf) if gradient is None else gradient
    return [pull.detach(), push.detach(), gradient]


@pytest.mark.parametrize('block', range(BLOCKS))
def test_the_loss_of_tags_is_mmposes(block: int) -> None:
    generator = torch.Generator().manual_seed(block)
    for number in range(CASES // BLOCKS):
        # Dimension by dimension it is MMPose's for several dimensions, too.
        dimensions = 1 + number % 3
        tags, indices = tag_inputs(generator, number % 6, dimensions)
        options = dict(loss_weight=0.3, push_loss_factor=0.7)
        ours = AssociativeEmbeddingLoss(**options, tag_distance='per_dimension')
        wanted = values_of(stock.AssociativeEmbeddingLoss(**options), tags, indices)
        for one, other in zip(values_of(ours, tags, indices), wanted, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
        if dimensions == 1:
            plain = values_of(AssociativeEmbeddingLoss(**options), tags, indices)
            torch.testing.assert_close(plain, wanted, rtol=1e-5, atol=1e-5)


def test_mmpose_pushes_people_who_differ_in_one_dimension() -> None:
    tags = torch.zeros(1, 2, 1, 2)
    tags[0, 0, 0, 1] = 9.0
    indices = [torch.tensor([[[0, 1]], [[1, 1]]])]
    _, ours = AssociativeEmbeddingLoss(push_loss_factor=1.0)(tags, indices)
    _, theirs = stock.AssociativeEmbeddingLoss(push_loss_factor=1.0)(tags, indices)
    # The pair n = n' of two people: 2 / (2 * 1); in MMPose once per dimension, and all pairs of
    # the second.
    torch.testing.assert_close(ours, torch.tensor(1.0))
    torch.testing.assert_close(theirs, torch.tensor(3.0))


@pytest.mark.parametrize('weighted', [False, True])
def test_the_loss_of_heatmaps_is_mmposes(weighted: bool) -> None:
    output, target, weights, mask = heatmap_inputs(torch.Generator().manual_seed(0), 2)
    target[0, 1] = 0
    for skip in (False, True):
        ours = KeypointHeatmapLoss(weighted, skip_empty_channel=skip, loss_weight=2.0)
        theirs = stock.KeypointMSELoss(weighted, skip_empty_channel=skip, loss_weight=2.0)
        found = ours(output, target, weights, mask)
        torch.testing.assert_close(
            found, theirs(output, target, weights if weighted else None, mask)
        )


def test_weights_of_people_do_not_fit_the_heatmaps_of_mmposes_loss() -> None:
    """MMPose's AssociativeEmbeddingHead joins the weights of all people: (people, K)."""
    output, target, _, mask = heatmap_inputs(torch.Generator().manual_seed(0), 2)
    weights = torch.ones(5, output.shape[1])
    with pytest.raises(AssertionError, match='mismatched shapes'):
        stock.KeypointMSELoss()(output, target, weights, mask)
    ours = KeypointHeatmapLoss()
    torch.testing.assert_close(
        ours(output, target, weights, mask), ours(output, target, None, mask)
    )
    with pytest.raises(ValueError, match='weights must be'):
        KeypointHeatmapLoss(use_target_weight=True)(output, target, weights, mask)


def test_heatmaps_and_tags_are_summed_with_the_weights_of_the_notes() -> None:
    generator = torch.Generator().manual_seed(0)
    output, target, _, _ = heatmap_inputs(generator, 2)
    tags, indices = tag_inputs(generator, 3)
    grouping = AssociativeEmbeddingLoss(1.0, 1.0, 'paper', sigma=1.0)
    parts = [sum(grouping(tags[i : i + 1], indices[i : i + 1])) for i in range(len(tags))]
    expected = 0.999 * (output - target).square().mean() + 0.001 * torch.stack(parts).mean()
    torch.testing.assert_close(HeatmapGroupingLoss()(output, target, tags, indices), expected)


def test_hard_joints_and_positives_count() -> None:
    output, target = torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)
    output[0, 0] = 3.0
    output[0, 1] = 2.0
    target[0, 2, 0, 0] = 1.0
    assert KeypointHeatmapLoss(hard_keypoints=2)(output, target) == pytest.approx((9 + 4) / 2)
    weighed = KeypointHeatmapLoss(positive_threshold=0.5, positive_weight=8.0)
    assert weighed(output, target) == pytest.approx((9 + 4 + 8 / 4) / 3)


@pytest.mark.parametrize(
    ('loss', 'options', 'message'),
    [
        (KeypointHeatmapLoss, dict(hard_keypoints=0), 'hard_keypoints must be'),
        (KeypointHeatmapLoss, dict(positive_weight=-1), 'positive_weight must be'),
        (AssociativeEmbeddingLoss, dict(sigma=0), 'sigma must be above 0'),
        (AssociativeEmbeddingLoss, dict(normalization='sum'), 'normalization must be'),
        (HeatmapGroupingLoss, dict(grouping_weight=-1), 'grouping_weight must be'),
    ],
)
def test_options_out_of_range_are_named(loss: Any, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loss(**options)


def test_indices_that_do_not_fit_are_named() -> None:
    loss, tags = AssociativeEmbeddingLoss(), torch.zeros(2, 3, 4, 4)
    with pytest.raises(ValueError, match='keypoint_indices must be of 2 images'):
        loss(tags, [torch.zeros(1, 3, 2)])
    with pytest.raises(ValueError, match=r'keypoint_indices must be \(N, K, 2\) for each image'):
        loss(tags, [torch.zeros(1, 3, 2), torch.zeros(1, 4, 2)])
