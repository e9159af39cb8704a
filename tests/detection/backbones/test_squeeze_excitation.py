"""Squeeze-and-excitation: by hand, and within mmdet's ResNet."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS as MMDET_MODELS

from mmdet_ext.registry import MODELS

PLUGIN = dict(type='mmdet_ext.SqueezeExcitation', ratio=4)


def block(**options: Any) -> Any:
    return MODELS.build(dict(type='mmdet_ext.SqueezeExcitation', **options))


def test_two_channels_by_hand() -> None:
    part = block(in_channels=2, ratio=2)
    part.squeeze.weight.data, part.squeeze.bias.data = torch.tensor([[1.0, -1]]), torch.zeros(1)
    part.excite.weight.data, part.excite.bias.data = torch.tensor([[1.0], [0]]), torch.zeros(2)
    x = torch.tensor([[[[1.0, 5]], [[1, 1]]]])  # means 3 and 1, squeezed to 3 - 1 = 2
    found = part(x)
    first = 1 / (1 + math.exp(-2))
    torch.testing.assert_close(found, torch.tensor([[[[first, 5 * first]], [[0.5, 0.5]]]]))


def test_half_precision_is_finite_and_stays() -> None:
    part = block(in_channels=8, ratio=4).half()
    found = part(torch.full((1, 8, 64, 64), 1000.0).half())
    assert found.dtype == torch.float16 and torch.isfinite(found).all()


def test_mmdets_resnet_takes_it_before_the_sum() -> None:
    backbone = MMDET_MODELS.build(
        dict(
            type='ResNet',
            depth=50,
            base_channels=4,
            plugins=[dict(cfg=PLUGIN, position='after_conv3')],
        )
    )
    blocks = [part for part in backbone.modules() if type(part).__name__ == 'Bottleneck']
    assert len(blocks) == 16
    first = backbone.layer1[1].eval()
    x = torch.randn(1, 16, 6, 6, generator=torch.Generator().manual_seed(0))
    out = first.norm1(first.conv1(x)).relu()
    out = first.norm3(first.conv3(first.norm2(first.conv2(out)).relu()))
    torch.testing.assert_close(first(x), (first.squeeze_excitation(out) + x).relu())
    assert [len(each) for each in backbone(torch.zeros(2, 3, 64, 64))] == [2] * 4


def test_mmdets_own_layer_cannot_be_a_plugin() -> None:
    # Where this fails, mmdet has mended it, and ours is needed no more.
    plugin = dict(cfg=dict(type='mmdet.models.layers.SELayer'), position='after_conv3')
    with pytest.raises(TypeError, match='in_channels'):
        MMDET_MODELS.build(dict(type='ResNet', depth=50, plugins=[plugin]))


def test_mmdets_small_resnets_take_no_plugin() -> None:
    plugin = dict(cfg=PLUGIN, position='after_conv2')
    with pytest.raises(AssertionError, match='Not implemented'):
        MMDET_MODELS.build(dict(type='ResNet', depth=18, plugins=[plugin]))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(in_channels=8), 'ratio must be at most in_channels=8, got 16'),
        (dict(in_channels=8, ratio=0), 'ratio must be at least 1, got 0'),
    ],
)
def test_a_wrong_option_is_named(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        block(**options)
