"""Necks of YOLOv2, YOLOv4 and YOLOv5: slow references, sizes that do not fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import leaky_relu, max_pool2d, silu

from mmdet_ext.registry import MODELS


def build(name: str, **options: Any) -> Any:
    torch.manual_seed(0)
    return MODELS.build(dict(type=f'mmdet_ext.{name}', **options)).eval()


def layer(part: Any, x: Tensor) -> Tensor:
    """Apply a convolution, its norm and a leaky ReLU."""
    return leaky_relu(part.norm(part.conv(x)), 0.1)


def layers(parts: Any, x: Tensor) -> Tensor:
    for part in parts:
        x = layer(part, x)
    return x


def maps(channels: tuple[int, ...], size: int = 4, seed: int = 0) -> list[Tensor]:
    """Make maps of halved sizes, of which the last has ``size`` cells per side."""
    generator = torch.Generator().manual_seed(seed)
    last = len(channels) - 1
    return [
        torch.randn(2, each, size << (last - i), size << (last - i), generator=generator)
        for i, each in enumerate(channels)
    ]


def test_yolov2_joins_the_stacked_fine_map_with_the_coarse_one() -> None:
    neck = build('YOLOV2Neck', in_channels=(3, 6, 8), out_channels=5, fine_channels=4)
    x = maps((3, 6, 8))
    (found,) = neck(x)
    fine = layer(neck.fine, x[1])
    assert found.shape == (2, 21, 4, 4)
    torch.testing.assert_close(found[:, 16:], layers(neck.coarse, x[2]))
    torch.testing.assert_close(found[:, 6], fine[:, 1, 1::2, 0::2])


def test_yolov4_equals_the_paths_written_out() -> None:
    neck = build('YOLOV4Neck', in_channels=(4, 8, 12))
    c3, c4, c5 = x = maps((4, 8, 12))

    def enlarged(value: Tensor) -> Tensor:
        return value.repeat_interleave(2, 2).repeat_interleave(2, 3)

    top = layers(neck.before_pooling, c5)
    pooled = [max_pool2d(top, side, 1, side // 2) for side in (13, 9, 5)]
    p5 = layers(neck.after_pooling, torch.cat([*pooled, top], 1))
    up4, up3 = neck.ups
    p4 = torch.cat([layer(up4.lateral, c4), enlarged(layer(up4.reduce, p5))], 1)
    p4 = layers(up4.convs, p4)
    p3 = torch.cat([layer(up3.lateral, c3), enlarged(layer(up3.reduce, p4))], 1)
    p3 = layers(up3.convs, p3)
    n4 = layers(neck.downs[0].convs, torch.cat([layer(neck.downs[0].down, p3), p4], 1))
    n5 = layers(neck.downs[1].convs, torch.cat([layer(neck.downs[1].down, n4), p5], 1))
    found = neck(x)
    assert [tuple(each.shape[1:]) for each in found] == [(6, 4, 4), (4, 8, 8), (2, 16, 16)]
    for one, other in zip(found, (n5, n4, p3), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_odd_maps_of_a_network_that_rounds_up_fit() -> None:
    neck = build('YOLOV4Neck', in_channels=(4, 8))
    x = [torch.zeros(1, 4, 7, 9), torch.zeros(1, 8, 4, 5)]
    assert [tuple(each.shape) for each in neck(x)] == [(1, 4, 4, 5), (1, 2, 7, 9)]


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda: build('YOLOV2Neck', in_channels=(8,)), 'in_channels must be of two maps or more'),
        (lambda: build('YOLOV2Neck', fine_channels=0), 'fine_channels must be at least 1, got 0'),
        (lambda: build('YOLOV4Neck', in_channels=(4, 7)), 'in_channels must be even numbers'),
        (
            lambda: build('YOLOV2Neck', in_channels=(6, 8))(
                [torch.zeros(1, 6, 7, 8), torch.zeros(1, 8, 3, 4)]
            ),
            'needs a fine map of 6 x 8, twice the last map, but got one of 7 x 8',
        ),
        (
            lambda: build('YOLOV4Neck', in_channels=(4, 8))(maps((4, 8, 8))),
            'in_channels of 2 maps, but got 3 maps',
        ),
    ],
)
def test_what_does_not_fit_is_named_with_both_numbers(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_yolov5_equals_the_paths_written_out() -> None:
    neck = build('YOLOv5Neck', in_channels=(4, 8, 12), depth=0.67)
    c3, c4, c5 = maps((4, 8, 12))

    def silus(part: Any, x: Tensor) -> Tensor:
        return silu(part.norm(part.conv(x)))

    def block(part: Any, x: Tensor) -> Tensor:
        way = silus(part.entry, x)
        assert len(part.blocks) == 2
        for narrow, wide in part.blocks:
            way = silus(wide, silus(narrow, way))
        return silus(part.merge, torch.cat([way, silus(part.bypass, x)], 1))

    def enlarged(value: Tensor) -> Tensor:
        return value.repeat_interleave(2, 2).repeat_interleave(2, 3)

    n5 = silus(neck.reduces[0], c5)
    n4 = silus(neck.reduces[1], block(neck.ups[0], torch.cat([enlarged(n5), c4], 1)))
    p3 = block(neck.ups[1], torch.cat([enlarged(n4), c3], 1))
    p4 = block(neck.downs[0], torch.cat([silus(neck.halves[0], p3), n4], 1))
    p5 = block(neck.downs[1], torch.cat([silus(neck.halves[1], p4), n5], 1))
    found = neck([c3, c4, c5])
    assert [each.shape[1] for each in found] == [4, 8, 12]
    for own, wanted in zip(found, (p3, p4, p5), strict=True):
        torch.testing.assert_close(own, wanted)


@pytest.mark.parametrize('channels', [(4, 8), (4, 8, 16)])
def test_yolov5_names_maps_that_do_not_fit(channels: tuple[int, ...]) -> None:
    neck = build('YOLOv5Neck', in_channels=(4, 8, 12))
    message = rf'in_channels=\[4, 8, 12\], but got maps of \[{", ".join(map(str, channels))}\]'
    with pytest.raises(ValueError, match=message):
        neck(maps(channels))
    for wrong in ((4,), (4, 7, 8)):
        with pytest.raises(ValueError, match='in_channels must be even numbers'):
            build('YOLOv5Neck', in_channels=wrong)
