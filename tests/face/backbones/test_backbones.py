"""Backbones: published sizes and names, a twin from plain functions, and the leaves of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import MODELS as HOST_MODELS
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from mmdet_ext.face.backbones import IResNet, MobileFaceNet
from mmdet_ext.registry import MODELS
from tests._helpers.configs import CONFIGS

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 14, 3), 100: (3, 13, 30, 3)}
#: Parameters at 112 px and 512 numbers; InsightFace gives 43.59 M for 50 and 65.15 M for 100.
PARAMETERS = {18: 24_025_600, 34: 34_139_328, 50: 43_590_848, 100: 65_156_160}
FACE = sorted(
    path
    for folder in ('ms1mv3', 'glint360k', 'webface')
    for path in (CONFIGS / 'face' / folder).glob('*.py')
)


# The twin: InsightFace's IResNet as a list of names and shapes, and plain functions on them.
def norm_shapes(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        f'{name}.{part}': (channels,) for part in ('weight', 'bias', 'running_mean', 'running_var')
    }
    return {**shapes, f'{name}.num_batches_tracked': ()}


def iresnet_shapes(
    depth: int, features: int = 512, cells: int = 49, base: int = 64
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of an InsightFace checkpoint."""
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
    """Weights that keep maps at a size of about 1, with every number drawn."""
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


def iresnet_twin(
    x: Tensor, state: Mapping[str, Tensor], depth: int, training: bool = False
) -> list[Tensor]:
    """The maps of the four stages, the last one normalised, and the embedding."""
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


def small_iresnet(**options: Any) -> IResNet:
    """An IResNet-18 with 8 channels at its stem, for 40 x 24 px: maps of 3 x 2 cells at its end."""
    return IResNet(
        **{'depth': 18, 'num_features': 16, 'base_channels': 8, 'input_size': (40, 24), **options}
    )


def small_state() -> dict[str, Tensor]:
    return random_state(iresnet_shapes(18, features=16, cells=6, base=8))


def pictures(number: int = 3, size: tuple[int, int] = (40, 24)) -> Tensor:
    return torch.randn(number, 3, *size, generator=torch.Generator().manual_seed(1))


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize('depth', BLOCKS)
def test_iresnet_has_insightface_names_shapes_and_size(depth: int) -> None:
    with torch.device('meta'):
        state = IResNet(depth).state_dict()
        model = IResNet(depth)
    assert {name: tuple(value.shape) for name, value in state.items()} == iresnet_shapes(depth)
    assert list(state) == list(iresnet_shapes(depth))
    assert count(model) == PARAMETERS[depth]
    # By hand: stem, units, last norm, linear layer, its norm.
    expected, before = 27 * 64 + 3 * 64, 64
    for stage, blocks in enumerate(BLOCKS[depth]):
        width = 64 * 2**stage
        expected += 2 * before + 9 * before * width + 9 * width**2 + 5 * width
        expected += before * width + 2 * width  # the way past the first unit
        expected += (blocks - 1) * (18 * width**2 + 7 * width)
        before = width
    assert count(model) == expected + 2 * 512 + (49 * 512 + 1) * 512 + 2 * 512


@pytest.mark.parametrize('training', [False, True], ids=['eval', 'train'])
def test_iresnet_equals_its_twin(training: bool) -> None:
    model, state, x = small_iresnet(out_indices=(0, 1, 2, 3)), small_state(), pictures()
    model.load_state_dict(state)
    found = model.train(training)(x)
    expected = iresnet_twin(x, state, 18, training)
    assert [tuple(map_.shape) for map_ in found] == [
        (3, 8, 20, 12),
        (3, 16, 10, 6),
        (3, 32, 5, 3),
        (3, 64, 3, 2),
        (3, 16),
    ]
    for map_, twin in zip(found, expected, strict=True):
        torch.testing.assert_close(map_, twin, rtol=1e-4, atol=1e-5)
    model = small_iresnet()
    model.load_state_dict(state)
    (alone,) = model.train(training)(x)
    torch.testing.assert_close(alone, found[-1])


def test_without_embedding_maps_of_any_size() -> None:
    state, x = small_state(), pictures(2, (50, 33))
    model = small_iresnet(with_embedding=False).eval()
    unused = model.load_state_dict(state, strict=False)
    assert not unused.missing_keys
    assert {key.partition('.')[0] for key in unused.unexpected_keys} == {'fc', 'features'}
    (map_,) = model(x)
    assert map_.shape == (2, 64, 4, 3)
    bigger = {**state, 'fc.weight': torch.zeros(16, 64 * 12)}
    torch.testing.assert_close(map_, iresnet_twin(x, bigger, 18)[3], rtol=1e-4, atol=1e-5)


def test_dropout_in_training_alone() -> None:
    state, x = small_state(), pictures()
    plain, dropping = small_iresnet(), small_iresnet(dropout=0.5, out_indices=(3,))
    for model in (plain, dropping):
        model.load_state_dict(state)
    torch.testing.assert_close(dropping.eval()(x)[-1], plain.eval()(x)[-1])
    torch.manual_seed(0)
    map_, embedding = dropping.train()(x)
    # The map given out is whole; the embedding was made of half of it, doubled.
    torch.testing.assert_close(map_, iresnet_twin(x, state, 18, True)[3], rtol=1e-4, atol=1e-5)
    torch.manual_seed(0)
    flat = F.dropout(map_.flatten(1), 0.5)
    expected = norm(F.linear(flat, state['fc.weight'], state['fc.bias']), state, 'features', True)
    torch.testing.assert_close(embedding, expected, rtol=1e-4, atol=1e-5)


def test_initial_weights_are_insightfaces() -> None:
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


def step(model: nn.Module, x: Tensor) -> set[str]:
    """Make one step of descent in training; the names of parameters and statistics that moved."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimiser = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=0.1)
    model.train()
    outputs = model(x)
    # Of normalised numbers a plain sum or square sum tells nothing.
    weights = torch.randn(outputs[-1].shape, generator=torch.Generator().manual_seed(3))
    (outputs[-1] * weights).sum().backward()
    optimiser.step()
    return {name for name, value in model.state_dict().items() if not value.equal(before[name])}


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
    moved = step(model, pictures(4))
    expected = {
        name
        for name in model.state_dict()
        if name.partition('.')[0] not in still and name != 'features.weight'
    }
    assert moved == expected


def test_norm_eval_keeps_all_statistics_and_takes_a_batch_of_one() -> None:
    model = small_iresnet(norm_eval=True)
    model.load_state_dict(small_state())
    moved = step(model, pictures(1))
    assert 'layer4.1.conv2.weight' in moved and 'features.bias' in moved
    assert not [name for name in moved if 'running' in name or 'tracked' in name]


@pytest.mark.parametrize(
    'make',
    [small_iresnet, lambda: MobileFaceNet(16, width=0.25, input_size=(40, 24))],
    ids=['IResNet', 'MobileFaceNet'],
)
class TestBoth:
    """What holds for both backbones, for pictures of 40 x 24 px."""

    def test_embedding_is_float32_under_autocast(self, make: Any) -> None:
        torch.manual_seed(0)
        model, x = make(), pictures()
        model.init_weights()
        (plain,) = model.eval()(x)
        with torch.autocast('cpu', torch.bfloat16):
            (mixed,) = model(x)
        assert mixed.dtype == torch.float32
        assert not mixed.equal(mixed.bfloat16().float())  # not rounded at the end
        assert F.cosine_similarity(plain, mixed).min() > 0.99
        (low,) = model.bfloat16()(x.bfloat16())
        assert low.dtype == torch.bfloat16
        assert F.cosine_similarity(plain, low.float()).min() > 0.97

    def test_other_sizes_are_refused(self, make: Any) -> None:
        model = make().eval()
        # 39 px make as many cells as 40, yet they are not what was asked for.
        for size in [(24, 40), (39, 24), (112, 112)]:
            with pytest.raises(
                ValueError,
                match=(
                    rf'pictures of {size[0]} x {size[1]} px .* input_size=\(40, 24\).*'
                    rf'set input_size=\({size[0]}, {size[1]}\)'
                ),
            ):
                model(pictures(1, size))

    def test_batch_of_one_is_refused_in_training_only(self, make: Any) -> None:
        model = make()
        with pytest.raises(ValueError, match=r'batch of 1 picture .* drop_last=True'):
            model.train()(pictures(1))
        x = pictures(3)
        torch.testing.assert_close(model.eval()(x[:1])[0], model(x)[0][:1], rtol=1e-4, atol=1e-5)

    def test_one_seed_one_network_and_every_weight_learns(self, make: Any) -> None:
        states = []
        for _ in range(2):
            torch.manual_seed(5)
            model = make()
            model.init_weights()
            moved = step(model, pictures(4))
            states.append(model.state_dict())
        for first, second in zip(states[0].values(), states[1].values(), strict=True):
            assert first.equal(second) and first.isfinite().all()
        # A bias in front of a normalisation over the batch has no part in the result, and the
        # gain of the embedding is fixed.
        still = set(model.state_dict()) - moved
        assert still <= {'features.weight', 'fc.bias'}

    def test_a_classifier_of_mmpretrain_takes_it(self, make: Any) -> None:
        from mmpretrain.models import ImageClassifier

        backbone = make()
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            model = ImageClassifier(backbone=backbone, neck=None, head=None).eval()
        found = model.extract_feat(pictures())
        assert isinstance(found, tuple) and len(found) == 1
        torch.testing.assert_close(found[-1], backbone(pictures())[-1])

    def test_it_trains_under_the_margin_head(self, make: Any) -> None:
        from mmpretrain.models import ImageClassifier
        from mmpretrain.structures import DataSample

        torch.manual_seed(0)
        head = dict(
            type='mmdet_ext.MarginHead',
            num_classes=3,
            in_channels=16,
            scale=16.0,
            margin=dict(type='ArcFace', m=0.3),
        )
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            model = ImageClassifier(backbone=make(), neck=None, head=head)
        model.init_weights()
        labels = [DataSample().set_gt_label(index % 3) for index in range(6)]
        optimiser = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        losses = []
        for _ in range(12):
            losses.append(sum(model.loss(pictures(6), labels).values()))
            optimiser.zero_grad()
            losses[-1].backward()
            optimiser.step()
        assert losses[0] > 3 and losses[-1] < losses[0] / 6


# (expansion, channels, number, stride) and the size of the map that comes in, as in table 1.
TABLE = [
    (2, 64, 5, 2, 56),
    (4, 128, 1, 2, 28),
    (2, 128, 6, 1, 14),
    (4, 128, 1, 2, 14),
    (2, 128, 2, 1, 7),
]


def mobilefacenet_count(features: int = 128, cells: int = 49, scale: float = 1) -> dict[str, int]:
    """Weights of convolutions, of PReLU, and channels of BN, from the paper's table."""
    stem, last = int(64 * scale), int(512 * scale)
    convs, prelus, norms, before = 27 * stem + 9 * stem, 2 * stem, 2 * stem, stem
    for expansion, full, number, _, _ in TABLE:
        channels = int(full * scale)
        for _ in range(number):
            hidden = expansion * before
            convs += before * hidden + 9 * hidden + hidden * channels
            prelus += 2 * hidden
            norms += 2 * hidden + channels
            before = channels
    convs += before * last + cells * last + last * features
    return {'convs': convs, 'prelus': prelus + last, 'norms': norms + 2 * last + features}


def test_mobilefacenet_has_the_papers_size() -> None:
    parts = mobilefacenet_count()
    model = MobileFaceNet()
    assert count(model) == parts['convs'] + parts['prelus'] + 2 * parts['norms'] == 1_003_136
    # With a BN folded into its convolution, a bias a channel is left.
    assert parts['convs'] + parts['prelus'] + parts['norms'] == 993_344  # 0.99 million
    small = mobilefacenet_count(64, cells=12, scale=0.5)
    assert count(MobileFaceNet(64, width=0.5, input_size=(64, 48))) == (
        small['convs'] + small['prelus'] + 2 * small['norms']
    )


def test_mobilefacenet_keeps_to_the_table() -> None:
    model, seen = MobileFaceNet().eval(), []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(
                lambda m, args, _: seen.append(
                    (
                        args[0].shape[2],
                        m.in_channels,
                        m.out_channels,
                        m.kernel_size[0],
                        m.stride[0],
                        m.groups > 1,
                    )
                )
            )
    model(pictures(1, (112, 112)))
    expected, before = [(112, 3, 64, 3, 2, False), (56, 64, 64, 3, 1, True)], 64
    for expansion, channels, number, stride, size in TABLE:
        for index in range(number):
            hidden, by = expansion * before, stride if index == 0 else 1
            expected += [(size, before, hidden, 1, 1, False), (size, hidden, hidden, 3, by, True)]
            size //= by
            expected += [(size, hidden, channels, 1, 1, False)]
            before = channels
    expected += [(7, 128, 512, 1, 1, False), (7, 512, 512, 7, 1, True), (1, 512, 128, 1, 1, False)]
    assert seen == expected
    # All that keep size and channels add what came in: 4 + 0 + 6 + 0 + 2.
    blocks = list(model.blocks)
    assert [block.residual for block in blocks] == (
        [False] + [True] * 4 + [False] + [True] * 6 + [False] + [True] * 2
    )
    assert sum(isinstance(m, nn.PReLU) for m in model.modules()) == 2 + 2 * 15 + 1


def test_a_bottleneck_adds_what_came_in() -> None:
    block = MobileFaceNet(width=0.25).blocks[1].eval()
    x = torch.randn(2, 16, 5, 4)
    convs = [m for m in block.modules() if isinstance(m, nn.Conv2d)]
    with torch.no_grad():
        convs[-1].weight.zero_()
    torch.testing.assert_close(block(x), x)


def test_mobilefacenet_learns_real_faces(shared_data: Path) -> None:
    """Four people of ORL, told apart by the cosine to centres after a few steps."""
    import cv2

    faces = [
        cv2.imread(str(shared_data / 'orl' / f's{person}' / f'{k}.pgm'))
        for person in range(1, 5)
        for k in range(1, 9)
    ]
    assert all(face is not None for face in faces)
    x = torch.tensor([cv2.resize(face, (48, 56)).tolist() for face in faces if face is not None])
    x = (x.permute(0, 3, 1, 2) - 127.5) / 128
    labels = torch.arange(4).repeat_interleave(8)
    torch.manual_seed(0)
    model = MobileFaceNet(32, width=0.25, input_size=(56, 48))
    model.init_weights()
    centres = nn.Parameter(torch.randn(4, 32))
    optimiser = torch.optim.SGD([*model.parameters(), centres], lr=0.05, momentum=0.9)
    losses = []
    for _ in range(12):
        logits = 16 * F.normalize(model(x)[0]) @ F.normalize(centres).T
        losses.append(F.cross_entropy(logits, labels))
        optimiser.zero_grad()
        losses[-1].backward()
        optimiser.step()
    assert losses[0] > 1 and losses[-1] < 0.05
    assert logits.argmax(1).equal(labels)


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
        (dict(input_size=(112, 0)), ValueError, r'at least 1 px a side, got \(112, 0\)'),
        (dict(widht=1), TypeError, "IResNet has no option 'widht'"),
    ],
)
def test_wrong_options_of_iresnet(options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        IResNet(**{'base_channels': 8, **options})


@pytest.mark.parametrize('width', [0, -1, float('nan'), float('inf')])
def test_wrong_width(width: float) -> None:
    with pytest.raises(ValueError, match='width must be a finite factor above 0'):
        MobileFaceNet(width=width)
    with pytest.raises(ValueError, match='num_features must be a whole number'):
        MobileFaceNet(num_features=-1)


# What each leaf must say: people, parameters of the backbone, margin, rate, decay, epochs, folder.
LEAVES: dict[str, tuple[Any, ...]] = {
    'arcface_iresnet50_8xb128_ms1mv3': (93431, PARAMETERS[50], 'ArcFace', 0.1, 5e-4, 20, 'ms1mv3'),
    'arcface_iresnet50_1xb128_ms1mv3': (93431, PARAMETERS[50], 'ArcFace', 0.02, 5e-4, 20, 'ms1mv3'),
    'arcface_iresnet100_8xb128_ms1mv3': (
        93431,
        PARAMETERS[100],
        'ArcFace',
        0.1,
        5e-4,
        20,
        'ms1mv3',
    ),
    'cosface_iresnet100_8xb128_ms1mv3': (
        93431,
        PARAMETERS[100],
        'CosFace',
        0.1,
        5e-4,
        20,
        'ms1mv3',
    ),
    'arcface_mobilefacenet_8xb128_ms1mv3': (93431, 1_003_136, 'ArcFace', 0.1, 1e-4, 40, 'ms1mv3'),
    'cosface_iresnet50_8xb128_glint360k': (
        360232,
        PARAMETERS[50],
        'CosFace',
        0.1,
        1e-4,
        20,
        'glint360k',
    ),
    'cosface_iresnet100_8xb128_glint360k': (
        360232,
        PARAMETERS[100],
        'CosFace',
        0.1,
        1e-4,
        20,
        'glint360k',
    ),
    'cosface_iresnet50_8xb128_webface12m': (
        617970,
        PARAMETERS[50],
        'CosFace',
        0.1,
        5e-4,
        20,
        'webface12m',
    ),
    'cosface_iresnet100_8xb128_webface42m': (
        2059906,
        PARAMETERS[100],
        'CosFace',
        0.1,
        5e-4,
        20,
        'webface42m',
    ),
}
MARGINS = {'ArcFace': 0.5, 'CosFace': 0.4}


def test_leaves_are_those_of_the_table() -> None:
    assert sorted(path.stem for path in FACE) == sorted(LEAVES)


@pytest.mark.parametrize('path', FACE, ids=lambda path: path.stem)
def test_leaf_says_what_its_name_says(path: Path) -> None:
    classes, parameters, margin, rate, decay, epochs, folder = LEAVES[path.stem]
    cfg = Config.fromfile(path)
    assert cfg.default_scope == 'mmpretrain'
    preprocessor = MODELS.build(cfg.model.pop('data_preprocessor'))
    with torch.device('meta'), DefaultScope.overwrite_default_scope('mmpretrain'):
        model = HOST_MODELS.build({**cfg.model, 'data_preprocessor': preprocessor})
    backbone, head = model.backbone, cfg.model.head
    assert count(backbone) == parameters
    assert tuple(model.head.weight.shape) == (classes, backbone.num_features)
    assert (head.type, head.num_classes, head.in_channels, head.scale) == (
        'mmdet_ext.MarginHead',
        classes,
        backbone.num_features,
        64,
    )
    assert head.margin == dict(type=margin, m=MARGINS[margin])
    assert cfg.model.neck is None
    # InsightFace's networks are fed with another divisor than MobileFaceNet's paper names.
    assert preprocessor.mean.unique().tolist() == [127.5]
    assert preprocessor.std.unique().tolist() == [127.5 if 'iresnet' in path.stem else 128.0]
    wrapper = cfg.optim_wrapper
    assert (wrapper.optimizer.lr, wrapper.optimizer.weight_decay) == (rate, decay)
    assert cfg.train_cfg.max_epochs == cfg.param_scheduler[0].end == epochs
    assert cfg.param_scheduler[0].power == 2
    devices = 8 if '8xb128' in path.stem else 1
    assert cfg.auto_scale_lr.base_batch_size == devices * cfg.train_dataloader.batch_size
    assert cfg.train_dataloader.batch_size == 128
    for part, kind in [('train', 'Record'), ('val', 'Pairs'), ('test', 'Pairs')]:
        dataset = cfg[f'{part}_dataloader'].dataset
        assert dataset.type == f'mmdet_ext.Face{kind}Dataset'
        assert dataset.data_root == f'data/{folder}/'
        assert dataset.get('ann_file') == (None if part == 'train' else 'lfw.bin')
