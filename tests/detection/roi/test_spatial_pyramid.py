"""Spatial pyramid pooling: maxima of bins, cell by cell."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.ops import roi_pool

from mmdet_ext.functional.pooling.windows import window_cells
from tests.detection.roi.roi_parts import (
    CLASSES,
    assert_trains_and_predicts,
    build,
    random_rois,
    roi_head,
)

PYRAMID = (6, 3, 2, 1)


def extractor(**options: Any) -> Any:
    return build('SPPRoIExtractor', **{**dict(out_channels=3, featmap_strides=[8]), **options})


def features(channels: int = 3, size: int = 8) -> Tensor:
    return torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(1))


def slow_pyramid(maps: Tensor, rois: Tensor, stride: float) -> Tensor:
    """Take the maximum of each bin, written as in the paper, with bins counted from 1."""
    rows = []
    for roi in rois.tolist():
        cells = window_cells(torch.tensor([roi[1:]]), stride, *maps.shape[-2:])[0].tolist()
        left, top, right, bottom = cells
        window = maps[int(roi[0]), :, top : bottom + 1, left : right + 1]
        height, width = window.shape[1:]
        bins = []
        for n in PYRAMID:
            for i in range(1, n + 1):
                for j in range(1, n + 1):
                    part = window[
                        :,
                        math.floor((i - 1) / n * height) : math.ceil(i / n * height),
                        math.floor((j - 1) / n * width) : math.ceil(j / n * width),
                    ]
                    bins.append(part.amax((1, 2)))
        rows.append(torch.stack(bins, 1))
    return torch.stack(rows)[..., None]


def test_equals_slow_maxima() -> None:
    maps, rois = features(), random_rois(40)
    found = extractor()((maps,), rois)
    assert found.shape == (40, 3, 50, 1)
    torch.testing.assert_close(found, slow_pyramid(maps, rois, 8))


def test_the_last_bin_is_the_maximum_of_the_window() -> None:
    maps = torch.arange(64.0).reshape(1, 1, 8, 8)
    roi = torch.tensor([[0.0, 4, 4, 28, 20]])  # centres of cells 1, 2, 3 and 1, 2
    found = extractor(out_channels=1)((maps,), roi)[0, 0, :, 0]
    assert found[-1] == 19  # row 2, column 3
    assert found[45:49].tolist() == [10, 11, 18, 19]  # 2 x 2, whose columns share cell 2


def test_one_level_is_roi_pooling_on_whole_cells() -> None:
    maps = features()
    # Cells k from 8 k - 4 to 8 k + 4: RoI pooling takes the last one too.
    cells = torch.tensor([[0, 1, 1, 5, 6], [1, 0, 2, 3, 3], [0, 7, 7, 7, 7]])
    rois = torch.cat([cells[:, :1], cells[:, 1:3] * 8 - 4, cells[:, 3:] * 8 + 4], 1).float()
    found = extractor(pyramid=(4,))((maps,), rois)
    expected = roi_pool(maps, cells.float(), 4)
    torch.testing.assert_close(found, expected.flatten(2)[..., None])


def test_levels_are_chosen_by_size() -> None:
    part = extractor(out_channels=1, featmap_strides=[8, 16], finest_scale=16)
    maps = (torch.ones(1, 1, 8, 8), torch.full((1, 1, 4, 4), 2.0))
    rois = torch.tensor([[0.0, 0, 0, 30, 30], [0, 0, 0, 60, 60]])
    assert part(maps, rois).amax((1, 2, 3)).tolist() == [1, 2]


def test_no_rois_and_rois_without_area() -> None:
    maps = features()
    assert extractor()((maps,), torch.zeros(0, 5)).shape == (0, 3, 50, 1)
    flat = torch.tensor([[0.0, 20, 20, 20, 20], [1, -50, -50, -40, -40], [0, 99, 99, 200, 200]])
    found = extractor()((maps,), flat)
    nearest = torch.stack([maps[0, :, 3, 3], maps[1, :, 0, 0], maps[0, :, 7, 7]])
    torch.testing.assert_close(found[..., 0], nearest[..., None].expand(-1, -1, 50))


def test_half_precision_is_computed_in_float32() -> None:
    maps, rois = features().half(), random_rois(5)
    found = extractor()((maps,), rois)
    torch.testing.assert_close(found, slow_pyramid(maps.float(), rois, 8))


def test_gradients_reach_the_cells_of_the_maxima() -> None:
    maps = features().requires_grad_()
    extractor(pyramid=(1,))((maps,), torch.tensor([[1.0, 0, 0, 64, 64]])).sum().backward()
    assert maps.grad is not None and maps.grad.sum() == 3
    at = maps.grad.bool()
    inside = maps[1, :, 1:, 1:]  # the centre of cell 0 is on the border of the window
    torch.testing.assert_close(maps[at].sort().values, inside.amax((1, 2)).sort().values)


def test_a_head_trains_and_predicts() -> None:
    head = roi_head(
        bbox_roi_extractor=dict(
            type='mmdet_ext.SPPRoIExtractor', out_channels=3, featmap_strides=[8]
        ),
        bbox_head=dict(
            type='Shared2FCBBoxHead',
            in_channels=3,
            roi_feat_size=(50, 1),
            fc_out_channels=16,
            num_classes=CLASSES,
        ),
    )
    assert_trains_and_predicts(head, (features(),))


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match='features of 4 channels, but out_channels=3'):
        extractor()((features(4),), random_rois(1))
    with pytest.raises(ValueError, match='pyramid must be bins per side of at least one level'):
        extractor(pyramid=())
    with pytest.raises(ValueError, match='pyramid must be at least 1, got 0'):
        extractor(pyramid=(3, 0))
