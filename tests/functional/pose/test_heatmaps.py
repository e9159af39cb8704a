"""Heatmaps of joints: a slow twin, weights of the error, and joints outside of the map."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mmdet_ext.functional.pose import (
    hard_keypoint_mean,
    heatmap_mse_loss,
    joint_cells,
    joint_heatmaps,
)


def slow_heatmaps(
    keypoints: Tensor, visible: Tensor, shape: tuple[int, int], sigma: float
) -> Tensor:
    """Draw the Gaussians person by person and pixel by pixel."""
    images, people, joints = visible.shape
    maps = torch.zeros(images, joints, *shape, dtype=torch.float64)
    for image in range(images):
        for person in range(people):
            for joint in range(joints):
                if not visible[image, person, joint]:
                    continue
                x0, y0 = (keypoints[image, person, joint] + 0.5).floor().long().tolist()
                for y in range(shape[0]):
                    for x in range(shape[1]):
                        if max(abs(x - x0), abs(y - y0)) <= 3 * sigma:
                            square = (x - x0) ** 2 + (y - y0) ** 2
                            value = math.exp(-square / (2 * sigma**2))
                            old = float(maps[image, joint, y, x])
                            maps[image, joint, y, x] = max(old, value)
    return maps


@pytest.mark.parametrize('sigma', [1.0, 1.5, 2.0])
def test_heatmaps_are_gaussians_around_the_cells(sigma: float) -> None:
    generator = torch.Generator().manual_seed(int(2 * sigma))
    keypoints = torch.rand(2, 4, 3, 2, generator=generator, dtype=torch.float64) * 26 - 6
    visible = torch.rand(2, 4, 3, generator=generator) > 0.3
    maps = joint_heatmaps(keypoints, visible, (12, 15), sigma)
    wanted = slow_heatmaps(keypoints, visible, (12, 15), sigma)
    torch.testing.assert_close(maps, wanted, atol=1e-12, rtol=0)


def test_joints_that_cannot_be_drawn_leave_the_map_empty() -> None:
    keypoints = torch.tensor([[[[math.nan, 1.0], [math.inf, 1.0], [-30.0, 1.0], [1e30, 1e30]]]])
    assert not joint_heatmaps(keypoints, torch.ones(1, 1, 4), (6, 6), 2.0).any()
    assert not joint_heatmaps(keypoints[:, :0], torch.ones(1, 0, 4), (6, 6), 2.0).any()
    cells, inside = joint_cells(keypoints, torch.ones(1, 1, 4), (6, 6))
    assert not inside.any() and not cells.any()


def test_cells_are_those_that_hold_the_joints() -> None:
    keypoints = torch.tensor([[0.49, 0.5], [3.49, -0.4], [3.5, 0.0], [-0.51, 0.0], [1.0, 2.0]])
    visible = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0])
    cells, inside = joint_cells(keypoints, visible, (3, 4))
    assert cells.tolist() == [4, 3, 0, 0, 0]
    assert inside.tolist() == [True, True, False, False, False]


def test_loss_weighs_joints_pixels_and_positives() -> None:
    generator = torch.Generator().manual_seed(5)
    heatmaps = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64)
    targets = torch.rand(2, 3, 4, 5, generator=generator, dtype=torch.float64)
    weights = torch.tensor([[1.0, 0.0, 2.0], [0.5, 1.0, 1.0]], dtype=torch.float64)
    mask = torch.rand(2, 1, 4, 5, generator=generator) > 0.3
    loss = heatmap_mse_loss(
        heatmaps, targets, weights, mask, positive_threshold=0.5, positive_weight=4.0
    )
    factor = weights[:, :, None, None] * mask * torch.where(targets >= 0.5, 4.0, 1.0)
    wanted = ((heatmaps - targets).square() * factor).mean((2, 3))
    torch.testing.assert_close(loss, wanted)
    plain = heatmap_mse_loss(heatmaps, targets)
    torch.testing.assert_close(plain.mean(), torch.nn.functional.mse_loss(heatmaps, targets))
    per_pixel = heatmap_mse_loss(heatmaps, targets, factor)
    torch.testing.assert_close(per_pixel, wanted)
    heatmaps.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: heatmap_mse_loss(x, targets, factor), (heatmaps,))


def test_what_does_not_count_may_be_infinite() -> None:
    heatmaps = torch.tensor([[[[math.inf, 1.0]], [[math.nan, math.nan]]]], requires_grad=True)
    weights, mask = torch.tensor([[1.0, 0.0]]), torch.tensor([[[[0.0, 1.0]]]])
    loss = heatmap_mse_loss(heatmaps, torch.zeros(1, 2, 1, 2), weights, mask)
    assert loss.tolist() == [[0.5, 0.0]]
    loss.sum().backward()
    assert heatmaps.grad is not None and heatmaps.grad.isfinite().all()


def test_hard_keypoints_are_the_largest_losses_of_an_image() -> None:
    loss = torch.tensor([[1.0, 4.0, 2.0], [0.0, 0.0, 3.0]])
    assert hard_keypoint_mean(loss, 2).tolist() == [3.0, 1.5]
    assert hard_keypoint_mean(loss, 9).tolist() == pytest.approx([7 / 3, 1.0])
    with pytest.raises(ValueError, match='count must be a whole number from 1 on, got 0'):
        hard_keypoint_mean(loss, 0)


def test_wrong_arguments_are_named() -> None:
    maps = torch.zeros(2, 3, 4, 4)
    with pytest.raises(ValueError, match=r'heatmaps and targets must be \(B, K, H, W\)'):
        heatmap_mse_loss(maps, maps[:, :2])
    with pytest.raises(ValueError, match=r'weights must be \(2, 3\)'):
        heatmap_mse_loss(maps, maps, torch.ones(2, 2))
    with pytest.raises(ValueError, match=r'mask must be \(2, 3, 4, 4\) or \(2, 1, 4, 4\)'):
        heatmap_mse_loss(maps, maps, mask=torch.ones(2, 4, 4))
    with pytest.raises(ValueError, match='positive_weight must be at least 0'):
        heatmap_mse_loss(maps, maps, positive_threshold=0.5, positive_weight=-1)
    with pytest.raises(ValueError, match='sigma must be above 0'):
        joint_heatmaps(torch.zeros(1, 1, 1, 2), torch.ones(1, 1, 1), (4, 4), 0)
