"""Checkpoints of InsightFace's names come out as ours: equal outputs, or an error and no file."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.registry import DefaultScope
from mmengine.runner import load_checkpoint
from torch import Tensor, nn

from mmdet_ext.face.backbones import IResNet
from tests._helpers.tools import load_tool

main = load_tool('train/convert_checkpoint.py').main


class Unit(nn.Module):
    """A unit as InsightFace's: its names, and nothing of our code."""

    def __init__(self, before: int, width: int, first: bool) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(before)
        self.conv1 = nn.Conv2d(before, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.prelu = nn.PReLU(width)
        self.conv2 = nn.Conv2d(width, width, 3, 2 if first else 1, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        if first:
            self.downsample = nn.Sequential(
                nn.Conv2d(before, width, 1, 2, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x: Tensor) -> Tensor:
        short = self.downsample(x) if hasattr(self, 'downsample') else x
        y = self.bn1(x)
        y = self.conv1(y)
        y = self.bn2(y)
        y = self.prelu(y)
        y = self.conv2(y)
        return short + self.bn3(y)


class Network(nn.Module):
    """A network as InsightFace's, with 8 channels at its stem instead of 64."""

    def __init__(self, blocks: tuple[int, ...], cells: int = 4, features: int = 16) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.prelu = nn.PReLU(8)
        before = 8
        for stage, number in enumerate(blocks):
            width = 8 * 2**stage
            units = [Unit(width if k else before, width, k == 0) for k in range(number)]
            setattr(self, f'layer{stage + 1}', nn.Sequential(*units))
            before = width
        self.bn2 = nn.BatchNorm2d(before)
        self.dropout = nn.Dropout(0)
        self.fc = nn.Linear(before * cells, features)
        self.features = nn.BatchNorm1d(features)

    def forward(self, x: Tensor) -> Tensor:
        x = self.prelu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.features(self.fc(self.dropout(torch.flatten(self.bn2(x), 1))))


BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 14, 3), 100: (3, 13, 30, 3)}


def network(depth: int = 18, **options: Any) -> Network:
    """One whose every number, statistics included, differs from that of a fresh one."""
    torch.manual_seed(depth)
    model = Network(BLOCKS[depth], **options)
    for name, value in model.state_dict().items():
        if value.ndim == 1:
            value.copy_(torch.rand(value.shape) + ('var' in name) * 0.5)
    model.features.weight.data.fill_(1)
    return model.eval()


def pictures(height: int = 32, width: int = 32) -> Tensor:
    return torch.randn(3, 3, height, width, generator=torch.Generator().manual_seed(2))


def saved(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path


def convert(*arguments: object) -> int:
    return main(['insightface', *map(str, arguments)])


def refused(capsys: pytest.CaptureFixture[str], out: Path, *arguments: object) -> str:
    """The error of a conversion that must fail and leave nothing behind."""
    before = sorted(out.parent.iterdir())
    assert convert(*arguments) == 2
    assert sorted(out.parent.iterdir()) == before
    error = capsys.readouterr().err
    assert error.startswith('error: ') and error.count('\n') == 1
    return error


WRAPPINGS: dict[str, Any] = {
    'plain': lambda state: state,
    'of distributed training': lambda state: {f'module.{k}': v for k, v in state.items()},
    'of a whole model': lambda state: {f'backbone.{k}': v for k, v in state.items()},
    'of both': lambda state: {f'module.backbone.{k}': v for k, v in state.items()},
    'training state': lambda state: {
        'epoch': 3,
        'global_step': 7,
        'state_dict_backbone': state,
        'state_dict_softmax_fc': {'weight': torch.ones(5, 16)},
        'state_optimizer': {'state': {}},
    },
    'parameters': lambda state: {k: nn.Parameter(v, False) for k, v in state.items()},
}


@pytest.mark.parametrize('wrapping', WRAPPINGS)
def test_outputs_are_equal_however_it_was_saved(wrapping: str, tmp_path: Path) -> None:
    source = network()
    path = saved(WRAPPINGS[wrapping](source.state_dict()), tmp_path / 'in.pth')
    assert convert(path, tmp_path / 'out.pth') == 0
    model = IResNet(
        18,
        16,
        input_size=32,
        base_channels=8,
        init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'out.pth'), prefix='backbone.'),
    )
    model.init_weights()
    torch.testing.assert_close(model.eval()(pictures())[-1], source(pictures()))


@pytest.mark.parametrize('depth', BLOCKS)
def test_depth_is_told_and_a_model_of_mmpretrain_takes_it(depth: int, tmp_path: Path) -> None:
    from mmpretrain.models import ImageClassifier

    source = network(depth)
    path = saved(source.state_dict(), tmp_path / 'in.pth')
    assert convert(path, tmp_path / 'new' / 'out.pth') == 0
    backbone = IResNet(depth, 16, input_size=32, base_channels=8)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = ImageClassifier(backbone=backbone, neck=None, head=None)
    checkpoint = load_checkpoint(model, str(tmp_path / 'new' / 'out.pth'), strict=True)
    torch.testing.assert_close(model.eval().extract_feat(pictures())[-1], source(pictures()))
    meta = checkpoint['meta']
    assert meta['backbone'] == dict(
        type='mmdet_ext.IResNet', depth=depth, num_features=16, input_size=32, base_channels=8
    )
    assert (meta['mean'], meta['std'], meta['to_rgb']) == (127.5, 127.5, True)
    assert meta['source_file'] == 'in.pth'
    assert meta['source_sha256'] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_summary_says_how_to_use_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = network()
    assert convert(saved(source.state_dict(), tmp_path / 'in.pth'), tmp_path / 'out.pth') == 0
    said = capsys.readouterr().out
    count = sum(p.numel() for p in source.parameters())
    assert f'IResNet-18: {count:,} parameters, 16 numbers an embedding, pictures of 32 x 32' in said
    assert "FaceDataPreprocessor', std=127.5)" in said
    assert 'depth=18, num_features=16, input_size=32, base_channels=8' in said


def test_half_precision_and_no_counters(tmp_path: Path) -> None:
    """Old versions of torch wrote no counters of batches; some files are stripped."""
    source = network()
    state = {
        key: value.half()
        for key, value in source.state_dict().items()
        if not key.endswith('num_batches_tracked')
    }
    assert convert(saved(state, tmp_path / 'in.pth'), tmp_path / 'out.pth') == 0
    written = torch.load(tmp_path / 'out.pth', weights_only=True)['state_dict']
    for key, value in source.state_dict().items():
        expected = value.half().float() if value.is_floating_point() else torch.tensor(0)
        assert written[f'backbone.{key}'].equal(expected), key
        assert written[f'backbone.{key}'].dtype == value.dtype
    assert len(written) == len(source.state_dict())


def test_other_prefix_and_size(tmp_path: Path) -> None:
    source = network(cells=6)
    path, out = saved(source.state_dict(), tmp_path / 'in.pth'), tmp_path / 'out.pth'
    assert convert(path, out, '--prefix', '', '--input-size', 40, 24, '--depth', 18) == 0
    checkpoint = torch.load(out, weights_only=True)
    assert checkpoint['meta']['backbone']['input_size'] == (40, 24)
    model = IResNet(18, 16, input_size=(40, 24), base_channels=8).eval()
    model.load_state_dict(checkpoint['state_dict'])
    torch.testing.assert_close(model(pictures(40, 24))[-1], source(pictures(40, 24)))


def test_centres_of_all_ranks_in_their_order(tmp_path: Path) -> None:
    path = saved(network().state_dict(), tmp_path / 'in.pth')
    centres = torch.randn(9, 16)
    ranks = [
        saved({'state_dict_softmax_fc': {'weight': centres[:5]}}, tmp_path / 'rank0.pt'),
        saved(centres[5:7], tmp_path / 'rank1.pt'),
        saved({'weight': nn.Parameter(centres[7:])}, tmp_path / 'rank2.pt'),
    ]
    assert convert(path, tmp_path / 'out.pth', '--centres', *ranks) == 0
    checkpoint = torch.load(tmp_path / 'out.pth', weights_only=True)
    assert checkpoint['state_dict']['head.weight'].equal(centres)
    assert checkpoint['meta']['num_classes'] == 9


def test_head_takes_the_centres(tmp_path: Path) -> None:
    from mmpretrain.models import ImageClassifier

    source, centres = network(), torch.randn(9, 16)
    path = saved(source.state_dict(), tmp_path / 'in.pth')
    out, file = tmp_path / 'out.pth', saved(centres, tmp_path / 'centres.pt')
    assert convert(path, out, '--centres', file) == 0
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = ImageClassifier(
            backbone=IResNet(18, 16, input_size=32, base_channels=8),
            head=dict(
                type='mmdet_ext.MarginHead',
                num_classes=9,
                in_channels=16,
                margin=dict(type='CosFace', m=0.4),
                scale=64.0,
            ),
        ).eval()
    load_checkpoint(model, str(out), strict=True)
    found = model(pictures(), mode='tensor')
    expected = 64 * nn.functional.normalize(source(pictures())) @ nn.functional.normalize(centres).T
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)


def broken(edit: Any) -> dict[str, Tensor]:
    state = network().state_dict()
    edit(state)
    return dict(state)


def removed(*keys: str) -> Any:
    return lambda state: [state.pop(key) for key in keys]


SPOILT: dict[str, tuple[Any, str]] = {
    'missing': (
        removed('layer1.0.bn3.weight', 'bn2.bias'),
        'not those of an IResNet of depth 18; 2 missing: layer1.0.bn3.weight, bn2.bias',
    ),
    'unexpected': (
        lambda s: s.update({'extra.bias': torch.ones(1), 'layer1.0.se.weight': torch.ones(1)}),
        '2 unexpected: extra.bias, layer1.0.se.weight',
    ),
    'shape': (
        lambda s: s.update({'layer2.0.conv1.weight': torch.ones(16, 8, 1, 1)}),
        '1 of another shape: layer2.0.conv1.weight (16, 8, 1, 1) for (16, 8, 3, 3)',
    ),
    'all three': (
        lambda s: s.update({'bn2.gain': s.pop('bn2.weight'), 'fc.bias': torch.ones(3)}),
        '1 missing: bn2.weight; 1 unexpected: bn2.gain; 1 of another shape: fc.bias (3,) for (16,)',
    ),
    'a whole stage': (
        lambda s: [s.pop(key) for key in list(s) if key.startswith('layer4.1.')],
        'stages of [2, 2, 2, 1] blocks are of no known depth. Known are 18: [2, 2, 2, 2]',
    ),
    'not finite': (
        lambda s: s['layer3.1.bn2.running_var'].fill_(float('nan')),
        'numbers that are not finite in layer3.1.bn2.running_var',
    ),
    'no last layer': (removed('fc.weight'), "no 'conv1.weight' of four and 'fc.weight' of two"),
    'not square': (
        lambda s: s.update({'fc.weight': torch.ones(16, 64 * 6)}),
        "'fc.weight' takes 384 numbers",
    ),
}


@pytest.mark.parametrize('what', SPOILT)
def test_spoilt_weights(what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit, message = SPOILT[what]
    path, out = saved(broken(edit), tmp_path / 'in.pth'), tmp_path / 'out.pth'
    assert message in refused(capsys, out, path, out)


OTHER: dict[str, tuple[Any, str]] = {
    'resnet of torchvision': (
        {'layer1.0.conv1.weight': torch.ones(1), 'conv1.weight': torch.ones(1)},
        'stages of [1, 0, 0, 0] blocks',
    ),
    'no network': ({'embedding.weight': torch.ones(2)}, "no keys such as 'layer1.0.conv1.weight'"),
    'numbers': ({'epoch': 3, 'loss': 0.5}, 'of which these are no tensors: epoch, loss'),
    'a list': ([torch.ones(2)], 'holds a list, expected a state dict'),
    'nothing': ({}, 'holds 0 entries (none), expected a state dict'),
    'one name twice': (
        {'module.fc.bias': torch.ones(1), 'fc.bias': torch.ones(1)},
        'several weights of one name once module., _orig_mod., backbone. are taken off: fc.bias',
    ),
}


@pytest.mark.parametrize('what', OTHER)
def test_other_contents(what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, message = OTHER[what]
    path, out = saved(content, tmp_path / 'in.pth'), tmp_path / 'out.pth'
    assert message in refused(capsys, out, path, out)


class Hostile:
    """Its pickle, loaded without care, makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_a_hostile_file_is_refused_and_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trap = tmp_path / 'trap'
    content = {**network().state_dict(), 'fc.bias': Hostile(trap)}
    out = tmp_path / 'out.pth'
    error = refused(capsys, out, saved(content, tmp_path / 'in.pth'), out)
    assert 'was refused: it holds' in error and 'Nothing of it was run' in error
    plain = tmp_path / 'plain.pth'
    plain.write_bytes(pickle.dumps(Hostile(trap)))
    refused(capsys, out, plain, out)
    centres = saved(Hostile(trap), tmp_path / 'centres.pt')
    path = saved(network().state_dict(), tmp_path / 'good.pth')
    assert 'was refused' in refused(capsys, out, path, out, '--centres', centres)
    assert not trap.exists()


@pytest.mark.filterwarnings('ignore:.*torch.jit.script', "ignore:'torch.load' received a zip")
def test_what_is_no_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, path = tmp_path / 'out.pth', tmp_path / 'in.pth'
    assert 'can not be found' in refused(capsys, out, path, out)
    path.write_bytes(b'these are words')
    assert 'cannot be loaded' in refused(capsys, out, path, out)
    buffer = io.BytesIO()
    torch.save(network().state_dict(), buffer)
    path.write_bytes(buffer.getvalue()[:-3000])
    assert 'cannot be loaded' in refused(capsys, out, path, out)
    torch.jit.script(nn.Linear(2, 2)).save(str(path))
    assert 'cannot be loaded' in refused(capsys, out, path, out)


def test_wrong_depth_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = saved(network(18).state_dict(), tmp_path / 'in.pth'), tmp_path / 'out.pth'
    error = refused(capsys, out, path, out, '--depth', 34)
    assert 'not those of an IResNet of depth 34; ' in error
    assert 'missing: layer1.2.bn1.weight' in error and ', and ' in error


def test_wrong_size_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = saved(network().state_dict(), tmp_path / 'in.pth'), tmp_path / 'out.pth'
    error = refused(capsys, out, path, out, '--input-size', 64, 32)
    assert 'of another shape: fc.weight (16, 256) for (16, 512)' in error
    assert 'at least 1 px' in refused(capsys, out, path, out, '--input-size', 0, 32)


CENTRES: dict[str, tuple[Any, str]] = {
    'of another length': (torch.ones(5, 8), 'centres of shape (5, 8), expected (classes, 16)'),
    'of one dimension': (torch.ones(16), 'centres of shape (16,)'),
    'none': ({'epoch': 1}, 'holds 1 entries (epoch), expected the class centres'),
    'not finite': (torch.full((2, 16), float('inf')), 'not finite in the class centres'),
}


@pytest.mark.parametrize('what', CENTRES)
def test_wrong_centres(what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, message = CENTRES[what]
    path, out = saved(network().state_dict(), tmp_path / 'in.pth'), tmp_path / 'out.pth'
    centres = saved(content, tmp_path / 'centres.pt')
    assert message in refused(capsys, out, path, out, '--centres', centres)


def test_input_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved(network().state_dict(), tmp_path / 'in.pth')
    before = path.read_bytes()
    assert 'written over what is read' in refused(capsys, path, path, path)
    assert path.read_bytes() == before


def test_an_older_result_stays_when_the_new_one_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = saved(network().state_dict(), tmp_path / 'in.pth'), tmp_path / 'out.pth'
    out.write_bytes(b'older')

    def full_disk(content: Mapping[str, Any], file: Path) -> None:
        Path(file).write_bytes(b'half')
        raise OSError('no space left')

    monkeypatch.setattr(torch, 'save', full_disk)
    assert 'no space left' in refused(capsys, out, path, out)
    assert out.read_bytes() == b'older'


def test_no_source_or_an_unknown_one_shows_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ['other', 'a', 'b']):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 2
        assert 'SOURCE' in capsys.readouterr().err
