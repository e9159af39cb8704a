"""ShuffleNetV2: equality with torchvision's network, stages, sizes, frozen parts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from mmdet_ext.detection.backbones.shufflenet_v2 import STAGE_CHANNELS
from mmdet_ext.registry import MODELS

NAMES = {0.5: 'x0_5', 1.0: 'x1_0', 1.5: 'x1_5', 2.0: 'x2_0'}


def build(**options: Any) -> Any:
    torch.manual_seed(0)
    return MODELS.build(dict(type='mmdet_ext.ShuffleNetV2Backbone', **options))


def torchvisions_maps(network: Any, x: Tensor) -> list[Tensor]:
    x = network.maxpool(network.conv1(x))
    found = []
    for stage in (network.stage2, network.stage3, network.stage4):
        x = stage(x)
        found.append(x)
    return found


@pytest.mark.parametrize('width', NAMES)
def test_maps_equal_torchvisions_with_its_weights_by_name(width: float) -> None:
    torch.manual_seed(1)
    theirs = getattr(models, f'shufflenet_v2_{NAMES[width]}')(weights=None)
    for part in theirs.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 1.5)
    ours = build(widen_factor=width, act_cfg=dict(type='ReLU'))
    missing, unexpected = ours.load_state_dict(theirs.state_dict(), strict=False)
    assert missing == []
    # What the classifier has behind the stages.
    assert {name.partition('.')[0] for name in unexpected} == {'conv5', 'fc'}
    x = torch.randn(2, 3, 64, 96)
    for one, other in zip(ours.eval()(x), torchvisions_maps(theirs.eval(), x), strict=True):
        torch.testing.assert_close(one, other)


def test_the_activation_is_leaky_with_a_slope_of_a_tenth() -> None:
    slopes = {part.negative_slope for part in build().modules() if isinstance(part, nn.LeakyReLU)}
    assert slopes == {0.1}
    assert not any(isinstance(part, nn.ReLU) for part in build().modules())


@pytest.mark.parametrize('size', [(1, 1), (10, 800), (33, 65), (64, 64)], ids=str)
def test_any_size_is_halved_and_rounded_up(size: tuple[int, int]) -> None:
    maps = build(widen_factor=0.5).eval()(torch.randn(1, 3, *size))
    for found, channels, stride in zip(maps, STAGE_CHANNELS[0.5], (8, 16, 32), strict=True):
        assert found.shape == (1, channels, *(-(-side // stride) for side in size))
        assert found.isfinite().all()


def test_stages_behind_the_last_map_are_not_built() -> None:
    first, both = build(out_indices=(0,)).eval(), build(out_indices=(2, 0)).eval()
    assert not hasattr(first, 'stage3') and hasattr(both, 'stage4')
    x = torch.randn(1, 3, 32, 32)
    assert [each.shape[1] for each in first(x)] == [116]
    assert [each.shape[1] for each in both(x)] == [116, 464]


@pytest.mark.parametrize('frozen', [-1, 0, 2])
def test_frozen_stages_keep_weights_and_statistics(frozen: int) -> None:
    model = build(widen_factor=0.5, frozen_stages=frozen).train()
    kept = ['conv1', 'stage2', 'stage3', 'stage4'][: frozen + 2 if frozen >= 0 else 0]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    sum(each.sum() for each in model(torch.randn(2, 3, 32, 32, requires_grad=True))).backward()
    for name, weight in model.named_parameters():
        assert (weight.grad is None) is (name.partition('.')[0] in kept), name
    for name, value in model.state_dict().items():
        if name.endswith('running_mean'):
            assert torch.equal(value, before[name]) is (name.partition('.')[0] in kept), name


def test_norms_use_their_statistics_in_training_where_asked() -> None:
    model = build(widen_factor=0.5, norm_eval=True).train()
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model(x), model.eval()(x))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(widen_factor=0.7), r'widen_factor must be 0\.5, 1\.0, 1\.5 or 2\.0, got 0\.7'),
        (dict(out_indices=()), r'out_indices must be indices of stages, 0 to 2, got \(\)'),
        (dict(out_indices=(3,)), r'out_indices must be indices of stages, 0 to 2, got \(3,\)'),
        (dict(frozen_stages=3), 'frozen_stages must be -1 for none, or .* 0 to 2, got 3'),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**options)
