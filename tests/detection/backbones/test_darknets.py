"""Backbones of YOLOv1, v2 and v4: sizes of the papers' tables, frozen stages, sizes that fail."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmdet_ext.detection.backbones.csp_darknet53 import CSPStage
from mmdet_ext.registry import MODELS


def build(name: str, **options: Any) -> Any:
    return MODELS.build(dict(type=f'mmdet_ext.{name}', **options))


def convolutions(model: nn.Module) -> list[nn.Conv2d]:
    return [part for part in model.modules() if isinstance(part, nn.Conv2d)]


#: Name -> number of convolutions, weights of all convolutions, and channels of the maps by stride.
#: The weights are sums over the tables of the papers, by hand.
TABLES = {
    'YOLOV1Backbone': (24, {64: 1024}),
    'Darknet19': (18, {16: 512, 32: 1024}),
    'CSPDarknet53': (72, {8: 256, 16: 512, 32: 1024}),
}


@pytest.mark.parametrize('name', TABLES)
def test_layers_and_channels_are_those_of_the_paper(name: str) -> None:
    with torch.device('meta'):
        model = build(name)
    count, channels = TABLES[name]
    assert len(convolutions(model)) == count
    narrow = build(name, width=1 / 16).eval()
    size = 2 * max(channels)
    maps = narrow(torch.randn(1, 3, size, size))
    for found, (stride, wide) in zip(maps, channels.items(), strict=True):
        assert found.shape == (1, wide // 16, size // stride, size // stride)


def test_numbers_of_weights() -> None:
    """By the rows of the tables: kernel**2 x channels in x channels out."""
    with torch.device('meta'):
        plain = build('YOLOV1Backbone', norm_cfg=None)
        darknet = build('Darknet19')
    rows = [(7, 3, 64), (3, 64, 192), (1, 192, 128), (3, 128, 256), (1, 256, 256), (3, 256, 512)]
    rows += [(1, 512, 256), (3, 256, 512)] * 4 + [(1, 512, 512), (3, 512, 1024)]
    rows += [(1, 1024, 512), (3, 512, 1024)] * 2 + [(3, 1024, 1024)] * 4
    assert sum(part.weight.numel() for part in convolutions(plain)) == sum(
        k * k * a * b for k, a, b in rows
    )
    assert all(part.bias is not None for part in convolutions(plain))
    rows = [(3, 3, 32), (3, 32, 64), (3, 64, 128), (1, 128, 64), (3, 64, 128)]
    rows += [(3, 128, 256), (1, 256, 128), (3, 128, 256)]
    rows += [(3, 256, 512), (1, 512, 256), (3, 256, 512), (1, 512, 256), (3, 256, 512)]
    rows += [(3, 512, 1024), (1, 1024, 512), (3, 512, 1024), (1, 1024, 512), (3, 512, 1024)]
    assert sum(part.weight.numel() for part in convolutions(darknet)) == sum(
        k * k * a * b for k, a, b in rows
    )


def test_a_cross_stage_joins_the_residual_way_and_the_bypass() -> None:
    """Slow reference: the stage of Darknet's configuration, layer by layer."""
    torch.manual_seed(0)
    stage = CSPStage(
        4, 8, 2, False, norm_cfg=dict(type='BN'), act_cfg=dict(type='torch.nn.Mish')
    ).eval()
    x = torch.randn(2, 4, 8, 8)

    def layer(part: Any, value: Tensor) -> Tensor:
        out = part.norm(part.conv(value))
        return out * torch.tanh(torch.log1p(out.exp()))

    down = layer(stage.down, x)
    side, way = layer(stage.bypass, down), layer(stage.entry, down)
    for block in stage.blocks:
        way = way + layer(block[1], layer(block[0], way))
    expected = layer(stage.merge, torch.cat([layer(stage.exit, way), side], 1))
    assert expected.shape == (2, 8, 4, 4)
    torch.testing.assert_close(stage(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('name', TABLES)
def test_frozen_stages_and_norms_stay(name: str) -> None:
    model = build(name, width=1 / 32, frozen_stages=1, norm_eval=True).train()
    frozen = {id(weight) for stage in model.stages[:2] for weight in stage.parameters()}
    for weight in model.parameters():
        assert weight.requires_grad is (id(weight) not in frozen)
    norms = [part for part in model.modules() if isinstance(part, nn.BatchNorm2d)]
    assert norms and not any(part.training for part in norms)
    free = build(name, width=1 / 32).train()
    assert all(weight.requires_grad for weight in free.parameters())
    assert all(part.training for part in free.modules())


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(width=0), 'width must be above 0'),
        (dict(out_indices=(9,)), r'out_indices must be indices of stages, 0 to 5, got \(9,\)'),
        (dict(out_indices=()), 'out_indices must be indices of stages'),
        (dict(frozen_stages=6), 'frozen_stages must be -1 for none'),
    ],
)
@pytest.mark.parametrize('name', ['Darknet19', 'CSPDarknet53'])
def test_wrong_options_are_named(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(name, **{'width': 1 / 32, **options})


@pytest.mark.parametrize(('name', 'stride'), [('YOLOV1Backbone', 64), ('CSPDarknet53', 32)])
def test_images_of_another_size_are_named_with_both_numbers(name: str, stride: int) -> None:
    model = build(name, width=1 / 32)
    with pytest.raises(ValueError, match=f'128 x 100 px .* no multiples of {stride}'):
        model(torch.zeros(1, 3, 128, 100))
    # Maps of a smaller stride need no more.
    assert build('Darknet19', width=1 / 32, out_indices=(2,)).eval()(torch.zeros(1, 3, 4, 8))
