"""BiFPN: one stage by hand, sizes of levels, and errors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmdet_ext.registry import MODELS

CHANNELS = [3, 4, 5]


def neck(**options: Any) -> Any:
    usual: dict[str, Any] = dict(in_channels=CHANNELS, out_channels=8, num_outs=5, num_stages=1)
    return MODELS.build(dict(type='mmdet_ext.BiFPN', **{**usual, **options}))


def inputs(sizes: list[tuple[int, int]], channels: list[int] | None = None) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(2, width, *size, generator=generator)
        for width, size in zip(channels or CHANNELS, sizes, strict=True)
    ]


def mixed(weights: list[float], maps: list[Tensor], conv: Any) -> Tensor:
    """Fuse maps with the formula written out, and convolve."""
    positive = [max(weight, 0.0) for weight in weights]
    total = sum(positive) + 1e-4
    fused: Tensor = sum(weight / total * each for weight, each in zip(positive, maps, strict=True))
    found: Tensor = conv(fused)
    return found


def test_a_stage_of_three_levels_equals_the_figure_written_out() -> None:
    bifpn = neck(num_outs=3).eval()
    (stage,) = bifpn.stages
    numbers = [[0.5, 2.0], [1.5, -1.0], [0.3, 0.4, 0.5], [0.0, 3.0]]
    nodes = [*stage.down, *stage.up]
    for node, weights in zip(nodes, numbers, strict=True):
        node.weights.data = torch.tensor(weights)
    maps = inputs([(16, 12), (8, 6), (4, 3)])
    p3, p4, p5 = (lateral(each) for lateral, each in zip(bifpn.laterals, maps, strict=True))

    def wide(each: Tensor) -> Tensor:
        return each.repeat_interleave(2, 2).repeat_interleave(2, 3)

    def small(each: Tensor) -> Tensor:
        return F.max_pool2d(each, 3, 2, 1)

    convs = [node.conv for node in nodes]
    t4 = mixed(numbers[1], [p4, wide(p5)], convs[1])
    o3 = mixed(numbers[0], [p3, wide(t4)], convs[0])
    o4 = mixed(numbers[2], [p4, t4, small(o3)], convs[2])
    o5 = mixed(numbers[3], [p5, small(o4)], convs[3])
    for found, expected in zip(bifpn(maps), (o3, o4, o5), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    'sizes',
    [
        [(64, 48), (32, 24), (16, 12)],
        [(67, 45), (34, 23), (17, 12)],  # rounded up, as a ResNet does
        [(67, 45), (33, 22), (16, 11)],  # rounded down
        [(5, 3), (3, 2), (2, 1)],
    ],
)
def test_levels_keep_their_sizes_and_further_ones_halve(sizes: list[tuple[int, int]]) -> None:
    maps = neck(num_stages=2)(inputs(sizes))
    last = sizes[-1]
    for _ in range(2):
        last = ((last[0] + 1) // 2, (last[1] + 1) // 2)
        sizes = [*sizes, last]
    assert [tuple(each.shape) for each in maps] == [(2, 8, *size) for size in sizes]


def test_the_first_further_level_comes_from_the_last_input() -> None:
    bifpn = neck(num_outs=5).eval()
    taken: list[Tensor] = []
    bifpn.stages[0].register_forward_pre_hook(lambda _, args: taken.extend(args[0]))
    maps = inputs([(16, 16), (8, 8), (4, 4)])
    bifpn(maps)
    expected = F.max_pool2d(bifpn.extra(maps[-1]), 3, 2, 1)
    torch.testing.assert_close(taken[3], expected)
    torch.testing.assert_close(taken[4], F.max_pool2d(expected, 3, 2, 1))


def test_every_weight_learns() -> None:
    bifpn = neck(num_stages=2)
    sum(each.square().mean() for each in bifpn(inputs([(16, 16), (8, 8), (4, 4)]))).backward()
    for name, parameter in bifpn.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        # Of the last stage only: those before it, but for its coarsest levels, have one too.
        assert parameter.grad.any() or name.endswith('.bias'), name


def test_levels_are_chosen_by_start_and_end() -> None:
    maps = inputs([(32, 32), (16, 16), (8, 8), (4, 4)], [2, *CHANNELS])
    bifpn = neck(in_channels=[2, *CHANNELS], start_level=1, end_level=2, num_outs=3)
    assert [each.shape[-1] for each in bifpn(maps)] == [16, 8, 4]
    assert [lateral.conv.in_channels for lateral in bifpn.laterals] == [3, 4]


def test_half_precision_is_finite() -> None:
    bifpn = neck().eval()
    with torch.autocast('cpu', torch.bfloat16):
        maps = bifpn([each * 100 for each in inputs([(16, 16), (8, 8), (4, 4)])])
    assert all(torch.isfinite(each).all() for each in maps)


def test_the_convolutions_are_depthwise() -> None:
    node = neck().stages[0].up[0]
    assert node.conv.depthwise_conv.conv.groups == 8
    assert sum(each.numel() for each in node.conv.parameters()) == 8 * 9 + 8 * 8 + 2 * 8


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(num_outs=2), 'num_outs must be a whole number from 3 on, got 2: 3 inputs'),
        (dict(start_level=3), 'start_level must be from 0 to 2, got 3'),
        (dict(end_level=3), 'end_level must be -1, or from 0 to 2, got 3'),
        (dict(num_stages=0), 'num_stages must be at least 1, got 0'),
        (dict(epsilon=0), 'epsilon must be above 0 and finite, got 0'),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        neck(**options)


def test_maps_that_are_not_as_many_as_in_channels_are_named() -> None:
    with pytest.raises(ValueError, match=r'got 2 maps, but in_channels=\[3, 4, 5\] names 3'):
        neck()(inputs([(8, 8), (4, 4)], CHANNELS[:2]))
