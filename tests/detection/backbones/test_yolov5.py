"""YOLOv5Backbone: sizes of the published networks, the pooling pyramid, images that do not fit."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn.functional import max_pool2d, silu

from mmdet_ext.detection.backbones.yolov5 import PoolingPyramid
from mmdet_ext.registry import MODELS

#: Parameters of backbone, neck and head at 80 classes, as published: in millions, and counted.
PUBLISHED = {
    'n': (0.33, 0.25, 1.87, 1_872_157),
    's': (0.33, 0.5, 7.23, 7_235_389),
    'm': (0.67, 0.75, 21.2, 21_190_557),
    'l': (1.0, 1.0, 46.5, 46_563_709),
}


def build(name: str, **options: Any) -> Any:
    torch.manual_seed(0)
    return MODELS.build(dict(type=f'mmdet_ext.{name}', **options)).eval()


@pytest.mark.parametrize('size', PUBLISHED)
def test_parameters_are_those_of_the_published_sizes(size: str) -> None:
    depth, width, millions, count = PUBLISHED[size]
    channels = [int(each * width) for each in (256, 512, 1024)]
    with torch.device('meta'):
        parts = [
            build('YOLOv5Backbone', depth=depth, width=width),
            build('YOLOv5Neck', in_channels=channels, depth=depth),
        ]
    parts.append(build('YOLOv5Head', num_classes=80, in_channels=channels))
    found = sum(each.numel() for part in parts for each in part.parameters())
    assert found == count
    assert found / 1e6 == pytest.approx(millions, rel=2e-3)


def test_maps_have_the_strides_and_channels_of_the_stages() -> None:
    backbone = build('YOLOv5Backbone', depth=0.33, width=0.25, out_indices=(0, 1, 2, 3, 4))
    with torch.no_grad():
        maps = backbone(torch.randn(1, 3, 64, 96))
    shapes = [(16, 2), (32, 4), (64, 8), (128, 16), (256, 32)]
    assert [each.shape[1:] for each in maps] == [(c, 64 // s, 96 // s) for c, s in shapes]


def test_three_small_windows_are_those_of_5_9_and_13_places() -> None:
    torch.manual_seed(0)
    cfg = dict(norm_cfg=dict(type='BN'), act_cfg=dict(type='SiLU'))
    pyramid = PoolingPyramid(8, **cfg).eval()
    x = torch.randn(2, 8, 15, 17)
    y = silu(pyramid.reduce.bn(pyramid.reduce.conv(x)))
    pooled = [max_pool2d(y, side, 1, side // 2) for side in (5, 9, 13)]
    joined = torch.cat([y, *pooled], 1)
    torch.testing.assert_close(pyramid(x), silu(pyramid.merge.bn(pyramid.merge.conv(joined))))


def test_first_weights_are_those_of_torch() -> None:
    backbone = MODELS.build(dict(type='mmdet_ext.YOLOv5Backbone', depth=0.33, width=0.5))
    backbone.init_weights()
    for part in backbone.modules():
        if isinstance(part, torch.nn.Conv2d) and part.weight.numel() > 3000:
            # Uniform in +-1 / sqrt(fan in).
            bound = 1 / math.sqrt(part.weight[0].numel())
            assert bound * 0.98 < part.weight.abs().max() <= bound
            assert float(part.weight.std()) == pytest.approx(bound / math.sqrt(3), rel=0.05)
    norms = [part for part in backbone.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    assert {(part.eps, part.momentum) for part in norms} == {(1e-3, 0.03)}


def test_frozen_stages_have_no_gradient() -> None:
    backbone = MODELS.build(
        dict(type='mmdet_ext.YOLOv5Backbone', depth=0.33, width=0.25, frozen_stages=2)
    ).train()
    sum(each.sum() for each in backbone(torch.randn(2, 3, 64, 64))).backward()
    for index, stage in enumerate(backbone.stages):
        assert all((each.grad is None) == (index <= 2) for each in stage.parameters())


def test_images_that_are_no_multiples_of_the_stride_are_named() -> None:
    with pytest.raises(
        ValueError, match='images of 30 x 64 px .* no multiples of 32. Set pad_size'
    ):
        build('YOLOv5Backbone', depth=0.33, width=0.25)(torch.zeros(1, 3, 30, 64))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(depth=0), 'depth must be above 0'),
        (dict(width=-1), 'width must be above 0'),
        (dict(out_indices=(5,)), 'out_indices must be indices of stages, 0 to 4'),
        (dict(frozen_stages=5), 'frozen_stages must be -1 for none'),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build('YOLOv5Backbone', **options)
