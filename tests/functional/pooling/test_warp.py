"""Warped crops: places by hand, and a slow interpolation."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mmdet_ext.functional.pooling.warp import context_boxes, warp_regions


def slow_pixel(image: Tensor, x: float, y: float) -> list[float]:
    """Interpolate linearly between the centres of pixels; outside of the image is 0."""
    _, height, width = image.shape
    total = [0.0] * len(image)
    left, top = math.floor(x - 0.5), math.floor(y - 0.5)
    for column in (left, left + 1):
        for row in (top, top + 1):
            share = (1 - abs(x - 0.5 - column)) * (1 - abs(y - 0.5 - row))
            if 0 <= column < width and 0 <= row < height:
                for channel in range(len(image)):
                    total[channel] += share * image[channel, row, column].item()
    return total


def slow_crop(images: Tensor, roi: list[float], size: int, context: int) -> Tensor:
    """Walk over the pixels of a crop."""
    number, x1, y1, x2, y2 = roi
    inner = size - 2 * context
    crop = torch.zeros(images.shape[1], size, size)
    for row in range(size):
        for column in range(size):
            # The box takes the inner pixels: pixel `context` begins at its corner.
            x = x1 + (column + 0.5 - context) / inner * (x2 - x1)
            y = y1 + (row + 0.5 - context) / inner * (y2 - y1)
            crop[:, row, column] = torch.tensor(slow_pixel(images[int(number)], x, y))
    return crop


@pytest.mark.parametrize(('size', 'context'), [(6, 0), (8, 2), (9, 4)])
def test_equals_a_slow_walk_over_pixels(size: int, context: int) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 2, 11, 13, generator=generator)
    rois = torch.tensor(
        [
            [1.0, 2.5, 3, 9, 7.25],
            [0, 0, 0, 13, 11],
            [1, -4, -4, 5, 20],  # beyond the image
            [0, 5, 5, 5, 9],  # no width
            [1, 12, 10, 13, 11],
        ]
    )
    found = warp_regions(images, rois, size, context)
    expected = torch.stack([slow_crop(images, roi, size, context) for roi in rois.tolist()])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_region_fills_the_inner_part() -> None:
    image = torch.zeros(1, 1, 30, 30)
    image[..., 10:20, 10:20] = 1
    crop = warp_regions(image, torch.tensor([[0.0, 10, 10, 20, 20]]), size=28, context=4)[0, 0]
    assert (crop[4:24, 4:24] > 0.5).all()
    outside = crop.clone()
    outside[4:24, 4:24] = 0
    assert (outside < 0.5).all()


def test_the_paper_shows_16_of_227_pixels_of_context() -> None:
    (box,) = context_boxes(torch.tensor([[0.0, 0, 195, 390]]), 227, 16).tolist()
    assert box == pytest.approx([-16, -32, 211, 422])


def test_regions_keep_their_order_over_images() -> None:
    images = torch.stack([torch.full((1, 4, 4), value) for value in (1.0, 2.0, 3.0)])
    inside = [0.5, 0.5, 3.5, 3.5]
    rois = torch.tensor([[number, *inside] for number in (2.0, 0, 1, 0, 2)])
    crops = warp_regions(images, rois, 2, 0)
    assert crops.amin((1, 2, 3)).tolist() == [3, 1, 2, 1, 3]


def test_gradients_reach_the_images() -> None:
    images = torch.rand(1, 1, 5, 5, dtype=torch.float64, requires_grad=True)
    rois = torch.tensor([[0.0, 0.7, 1.1, 4.2, 3.9]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: warp_regions(x, rois, 3, 1), (images,))


def test_no_regions_and_half_precision() -> None:
    images = torch.ones(1, 3, 8, 8).half()
    assert warp_regions(images, torch.zeros(0, 5), 4, 1).shape == (0, 3, 4, 4)
    crop = warp_regions(images, torch.tensor([[0.0, 2, 2, 6, 6]]), 4, 1)
    assert crop.dtype == torch.float32
    torch.testing.assert_close(crop, torch.ones(1, 3, 4, 4))


def test_bad_input_is_named() -> None:
    images, rois = torch.ones(1, 3, 8, 8), torch.zeros(1, 5)
    with pytest.raises(ValueError, match='context must be less than half of size=32, got 16'):
        warp_regions(images, rois, 32, 16)
    with pytest.raises(ValueError, match='context must be a whole number from 0 on, got -1'):
        warp_regions(images, rois, 32, -1)
    with pytest.raises(ValueError, match=r'rois \(N, 5\), got \(1, 3, 8, 8\) and \(1, 4\)'):
        warp_regions(images, torch.zeros(1, 4), 32)
