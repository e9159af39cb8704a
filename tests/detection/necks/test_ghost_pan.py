"""GhostPAN: the paths written out, sizes that do not double, input that does not fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate

from mmdet_ext.registry import MODELS
from tests.detection.necks.test_yolo_necks import layer, maps


def build(**options: Any) -> Any:
    torch.manual_seed(0)
    neck = MODELS.build(dict(type='mmdet_ext.GhostPAN', **options)).eval()
    for name, value in neck.state_dict().items():
        if value.is_floating_point() and value.dim() == 1:
            torch.nn.init.uniform_(value, 0.5, 1.5) if 'var' in name else value.normal_(0.5, 0.3)
    return neck


def separable(part: Any, x: Tensor) -> Tensor:
    """Apply a depthwise and a 1x1 convolution, each with norm and activation."""
    return layer(part.pointwise_conv, layer(part.depthwise_conv, x))


def plain(part: Any, x: Tensor) -> Tensor:
    return part.norm(part.conv(x))


def ghost_module(part: Any, x: Tensor, activated: bool) -> Tensor:
    """Apply a ghost module, of which a depthwise convolution makes half of the channels."""
    step = layer if activated else plain
    half = step(part.primary, x)
    return torch.cat([half, step(part.cheap, half)], 1)


def ghost(part: Any, x: Tensor) -> Tensor:
    """Apply a ghost bottleneck, whose shortcut is convolved where channels change."""
    out = ghost_module(part.project, ghost_module(part.expand, x, True), False)
    if x.shape[1] != out.shape[1]:
        x = plain(part.shortcut.pointwise_conv, plain(part.shortcut.depthwise_conv, x))
    return x + out


def through(blocks: Any, *parts: Tensor) -> Tensor:
    x = torch.cat(parts, 1)
    for block in blocks:
        x = ghost(block, x)
    return x


@pytest.mark.parametrize('num_blocks', [1, 2])
def test_maps_equal_the_paths_written_out(num_blocks: int) -> None:
    neck = build(in_channels=(3, 5, 7), out_channels=8, num_blocks=num_blocks)
    x = maps((3, 5, 7))
    c3, c4, c5 = (layer(part, each) for part, each in zip(neck.reduce_layers, x, strict=True))

    def enlarged(value: Tensor) -> Tensor:
        return interpolate(value, scale_factor=2, mode='bilinear')

    p4 = through(neck.top_down_blocks[0], enlarged(c5), c4)
    p3 = through(neck.top_down_blocks[1], enlarged(p4), c3)
    n4 = through(neck.bottom_up_blocks[0], separable(neck.downsamples[0], p3), p4)
    n5 = through(neck.bottom_up_blocks[1], separable(neck.downsamples[1], n4), c5)
    n6 = separable(neck.extra_in[0], c5) + separable(neck.extra_out[0], n5)
    found = neck(x)
    assert [tuple(each.shape[1:]) for each in found] == [(8, s, s) for s in (16, 8, 4, 2)]
    for one, other in zip(found, (p3, n4, n5, n6), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_ghost_module_computes_half_of_its_channels_from_the_other_half() -> None:
    neck = build(in_channels=(3, 5), out_channels=8)
    module = neck.top_down_blocks[0][0].project
    out = module(torch.randn(1, 8, 6, 6))
    cheap = module.cheap
    again = cheap.norm(conv2d(out[:, :4], cheap.conv.weight, padding=1, groups=4))
    assert out.shape == (1, 8, 6, 6)
    torch.testing.assert_close(out[:, 4:], again)


@pytest.mark.parametrize('size', [(1, 1), (3, 5), (1, 250)], ids=str)
def test_maps_whose_sides_do_not_double_are_joined(size: tuple[int, int]) -> None:
    neck = build(in_channels=(3, 5), out_channels=4)
    halved = tuple(-(-side // 2) for side in size)
    found = neck([torch.randn(1, 3, *size), torch.randn(1, 5, *halved)])
    last = tuple(-(-side // 2) for side in halved)
    assert [tuple(each.shape[-2:]) for each in found] == [size, halved, last]


def test_levels_beyond_the_backbone_are_an_option() -> None:
    assert len(build(in_channels=(3, 5), out_channels=4, num_extra_levels=0)(maps((3, 5)))) == 2
    assert len(build(in_channels=(3,), out_channels=4)(maps((3,)))) == 2


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(in_channels=()), 'in_channels must be the channels of one map or more'),
        (dict(in_channels=(3, 0)), 'in_channels must be the channels of one map or more'),
        (dict(out_channels=9), 'out_channels must be even, got 9'),
        (dict(kernel_size=4), 'kernel_size must be odd, got 4'),
        (dict(num_extra_levels=2), 'num_extra_levels must be 0 or 1, got 2'),
        (dict(num_extra_levels=-1), 'num_extra_levels must be a whole number from 0 on'),
        (dict(num_blocks=0), 'num_blocks must be at least 1'),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_another_number_of_maps_is_named() -> None:
    with pytest.raises(ValueError, match='in_channels of 2 maps, but got 3 maps: let out_indices'):
        build(in_channels=(3, 5), out_channels=4)(maps((3, 5, 7)))
