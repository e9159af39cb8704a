"""IResNet: InsightFace's names, sizes and results, frozen stages, errors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdet_ext.face.backbones import IResNet
from tests._helpers.backbones import BLOCKS, PARAMETERS, count, images, small_iresnet, step


def norm_shapes(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of a batch norm."""
    shapes: dict[str, tuple[int, ...]] = {
        f'{name}.{part}': (channels,) for part in ('weight', 'bias', 'running_mean', 'running_var')
    }
    return {**shapes, f'{name}.num_batches_tracked': ()}


def iresnet_shapes(
    depth: int, features: int = 512, cells: int = 49, base: int = 64
) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of an InsightFace checkpoint."""
    shapes = {'conv1.weight': (base, 3, 3, 3), **norm_shapes('bn1', base), 'prelu.weight': (base,)}
    before = base
    for stage, blocks in enumerate(BLOCKS[depth]):
        width = base << stage
        for block in range(blocks):
            unit = f'layer{stage + 1}.{block}'
            shapes.update(norm_shapes(f'{unit}.bn1', before))
            shapes[f'{unit}.conv1.weight'] = (width, before, 3, 3)
            shapes.update(norm_shapes(f'{unit}.bn2', width))
            shapes[f'{unit}.prelu.weight'] = (width,)
            shapes[f'{unit}.conv2.weight'] = (width, width, 3, 3)
            shapes.update(norm_shapes(f'{unit}.bn3', width))
            if block == 0:
                shapes[f'{unit}.downsample.0.weight'] = (width, before, 1, 1)
                shapes.update(norm_shapes(f'{unit}.downsample.1', width))
            before = width
    shapes.update(norm_shapes('bn2', before))
    shapes['fc.weight'], shapes['fc.bias'] = (features, before * cells), (features,)
    return {**shapes, **norm_shapes('features', features)}


def random_state(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    """Return random weights that keep maps at a size of about 1."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        draw = torch.randn(shape, generator=generator)
        if name.endswith('num_batches_tracked'):
            state[name] = torch.tensor(7)
        elif len(shape) > 1:
            state[name] = draw * math.sqrt(1 / math.prod(shape[1:]))
        elif name.endswith('running_var'):
            state[name] = 0.5 + draw.abs()
        else:
            state[name] = draw * 0.2 + (name.endswith('weight') and 'prelu' not in name)
    return state


def norm(x: Tensor, state: Mapping[str, Tensor], name: str, training: bool) -> Tensor:
    mean, var = state[f'{name}.running_mean'].clone(), state[f'{name}.running_var'].clone()
    weight, bias = state[f'{name}.weight'], state[f'{name}.bias']
    return F.batch_norm(x, mean, var, weight, bias, training, eps=1e-5)


def slow_iresnet(
    x: Tensor, state: Mapping[str, Tensor], depth: int, training: bool = False
) -> list[Tensor]:
    """Compute the maps of the four stages, the last one normalised, and the embedding."""
    x = F.conv2d(x, state['conv1.weight'], padding=1)
    x = F.prelu(norm(x, state, 'bn1', training), state['prelu.weight'])
    maps = []
    for stage, blocks in enumerate(BLOCKS[depth]):
        for block in range(blocks):
            unit = f'layer{stage + 1}.{block}'
            stride = 2 if block == 0 else 1
            short = x
            if block == 0:
                short = F.conv2d(x, state[f'{unit}.downsample.0.weight'], stride=2)
                short = norm(short, state, f'{unit}.downsample.1', training)
            out = norm(x, state, f'{unit}.bn1', training)
            out = F.conv2d(out, state[f'{unit}.conv1.weight'], padding=1)
            out = norm(out, state, f'{unit}.bn2', training)
            out = F.prelu(out, state[f'{unit}.prelu.weight'])
            out = F.conv2d(out, state[f'{unit}.conv2.weight'], stride=stride, padding=1)
            x = norm(out, state, f'{unit}.bn3', training) + short
        maps.append(x)
    maps[-1] = norm(x, state, 'bn2', training)
    out = F.linear(maps[-1].flatten(1), state['fc.weight'], state['fc.bias'])
    return [*maps, norm(out, state, 'features', training)]


def small_state() -> dict[str, Tensor]:
    return random_state(iresnet_shapes(18, features=16, cells=6, base=8))


@pytest.mark.parametrize('depth', BLOCKS)
def test_iresnet_has_insightface_names_shapes_and_size(depth: int) -> None:
    with torch.device('meta'):
        state = IResNet(depth).state_dict()
        model = IResNet(depth)
    assert {name: tuple(value.shape) for name, value in state.items()} == iresnet_shapes(depth)
    assert list(state) == list(iresnet_shapes(depth))
    assert count(model) == PARAMETERS[depth]
    # Sum by hand: stem, units, last norm, linear layer, its norm.
    expected, before = 27 * 64 + 3 * 64, 64
    for stage, blocks in enumerate(BLOCKS[depth]):
        width = 64 * 2**stage
        expected += 2 * before + 9 * before * width + 9 * width**2 + 5 * width
        expected += before * width + 2 * width  # shortcut of the first unit
        expected += (blocks - 1) * (18 * width**2 + 7 * width)
        before = width
    assert count(model) == expected + 2 * 512 + (49 * 512 + 1) * 512 + 2 * 512


@pytest.mark.parametrize('training', [False, True], ids=['eval', 'train'])
def test_iresnet_equals_plain_functions_on_its_weights(training: bool) -> None:
    model, state, x = small_iresnet(out_indices=(0, 1, 2, 3)), small_state(), images()
    model.load_state_dict(state)
    found = model.train(training)(x)
    expected = slow_iresnet(x, state, 18, training)
    assert [tuple(map_.shape) for map_ in found] == [
        (3, 8, 20, 12),
        (3, 16, 10, 6),
        (3, 32, 5, 3),
        (3, 64, 3, 2),
        (3, 16),
    ]
    for map_, slow in zip(found, expected, strict=True):
        torch.testing.assert_close(map_, slow, rtol=1e-4, atol=1e-5)
    model = small_iresnet()
    model.load_state_dict(state)
    (alone,) = model.train(training)(x)
    torch.testing.assert_close(alone, found[-1])


def test_network_without_embedding_returns_maps_of_any_size() -> None:
    state, x = small_state(), images(2, (50, 33))
    model = small_iresnet(with_embedding=False).eval()
    unused = model.load_state_dict(state, strict=False)
    assert not unused.missing_keys
    assert {key.partition('.')[0] for key in unused.unexpected_keys} == {'fc', 'features'}
    (map_,) = model(x)
    assert map_.shape == (2, 64, 4, 3)
    bigger = {**state, 'fc.weight': torch.zeros(16, 64 * 12)}
    torch.testing.assert_close(map_, slow_iresnet(x, bigger, 18)[3], rtol=1e-4, atol=1e-5)


def test_dropout_acts_in_training_only() -> None:
    state, x = small_state(), images()
    plain, dropping = small_iresnet(), small_iresnet(dropout=0.5, out_indices=(3,))
    for model in (plain, dropping):
        model.load_state_dict(state)
    torch.testing.assert_close(dropping.eval()(x)[-1], plain.eval()(x)[-1])
    torch.manual_seed(0)
    map_, embedding = dropping.train()(x)
    # The returned map is whole. The embedding used half of its cells, doubled.
    torch.testing.assert_close(map_, slow_iresnet(x, state, 18, True)[3], rtol=1e-4, atol=1e-5)
    torch.manual_seed(0)
    flat = F.dropout(map_.flatten(1), 0.5)
    expected = norm(F.linear(flat, state['fc.weight'], state['fc.bias']), state, 'features', True)
    torch.testing.assert_close(embedding, expected, rtol=1e-4, atol=1e-5)


def test_initial_weights_are_those_of_insightface() -> None:
    torch.manual_seed(0)
    model = IResNet(18, base_channels=32, input_size=32)
    model.init_weights()
    convs = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert len(convs) == 21
    pooled = torch.cat([weight.detach().flatten() for weight in convs])
    assert pooled.std().item() == pytest.approx(0.1, rel=2e-3)
    assert pooled.mean().item() == pytest.approx(0, abs=1e-3)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            assert (module.weight == 1).all() and (module.bias == 0).all()
    assert all((m.weight == 0.25).all() for m in model.modules() if isinstance(m, nn.PReLU))
    fixed = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert fixed == ['features.weight']


@pytest.mark.parametrize(
    ('frozen', 'still'),
    [
        (-1, ()),
        (0, ('conv1', 'bn1', 'prelu')),
        (2, ('conv1', 'bn1', 'prelu', 'layer1', 'layer2')),
        (4, ('conv1', 'bn1', 'prelu', 'layer1', 'layer2', 'layer3', 'layer4')),
    ],
)
def test_frozen_stages_keep_weights_and_statistics(frozen: int, still: tuple[str, ...]) -> None:
    model = small_iresnet(frozen_stages=frozen)
    model.load_state_dict(small_state())
    moved = step(model, images(4))
    expected = {
        name
        for name in model.state_dict()
        if name.partition('.')[0] not in still and name != 'features.weight'
    }
    assert moved == expected


def test_norm_eval_keeps_all_statistics_and_accepts_a_batch_of_one() -> None:
    model = small_iresnet(norm_eval=True)
    model.load_state_dict(small_state())
    moved = step(model, images(1))
    assert 'layer4.1.conv2.weight' in moved and 'features.bias' in moved
    assert not [name for name in moved if 'running' in name or 'tracked' in name]


@pytest.mark.parametrize(
    ('options', 'error', 'message'),
    [
        (dict(depth=101), ValueError, r'depth must be one of \[18, 34, 50, 100\], got 101'),
        (
            dict(num_features=0),
            ValueError,
            'num_features must be a whole number of at least 1, got 0',
        ),
        (dict(base_channels=2.5), ValueError, 'base_channels must be a whole number .* got 2.5'),
        (dict(dropout=1.0), ValueError, r'dropout must be a share in \[0, 1\), got 1.0'),
        (dict(dropout=float('nan')), ValueError, 'dropout must be a share'),
        (dict(frozen_stages=5), ValueError, 'frozen_stages must be from -1 .* to 4 .* got 5'),
        (
            dict(out_indices=(1, 0)),
            ValueError,
            r'out_indices must be .* in their order, got \(1, 0\)',
        ),
        (dict(out_indices=(4,)), ValueError, r'stages from 0 to 3, .* got \(4,\)'),
        (dict(out_indices=(), with_embedding=False), ValueError, 'nothing would be given out'),
        (dict(input_size='112'), TypeError, "input_size must be a side .* got '112'"),
        (dict(input_size=(112, 112, 3)), TypeError, r'got \(112, 112, 3\)'),
        (dict(input_size=(112, 0)), ValueError, r'at least 1 px per side, got \(112, 0\)'),
        (dict(widht=1), TypeError, "IResNet has no option 'widht'"),
    ],
)
def test_wrong_options_are_named(options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        IResNet(**{'base_channels': 8, **options})
