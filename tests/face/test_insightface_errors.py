"""Tests of conversions that fail: one clear error, and no file left behind."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.face.insightface_networks import main, network, refused, saved


def broken(edit: Any) -> dict[str, Tensor]:
    state = network().state_dict()
    edit(state)
    return dict(state)


def removed(*keys: str) -> Any:
    return lambda state: [state.pop(key) for key in keys]


WRONG_WEIGHTS: dict[str, tuple[Any, str]] = {
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


@pytest.mark.parametrize('what', WRONG_WEIGHTS)
def test_wrong_weights_are_named(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit, message = WRONG_WEIGHTS[what]
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
def test_other_contents_are_described(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, message = OTHER[what]
    path, out = saved(content, tmp_path / 'in.pth'), tmp_path / 'out.pth'
    assert message in refused(capsys, out, path, out)


class Hostile:
    """Object whose pickle creates a file when it is loaded without protection."""

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
def test_other_files_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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


def test_wrong_depth_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = saved(network(18).state_dict(), tmp_path / 'in.pth'), tmp_path / 'out.pth'
    error = refused(capsys, out, path, out, '--depth', 34)
    assert 'not those of an IResNet of depth 34; ' in error
    assert 'missing: layer1.2.bn1.weight' in error and ', and ' in error


def test_wrong_size_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
def test_wrong_centres_are_named(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, message = CENTRES[what]
    path, out = saved(network().state_dict(), tmp_path / 'in.pth'), tmp_path / 'out.pth'
    centres = saved(content, tmp_path / 'centres.pt')
    assert message in refused(capsys, out, path, out, '--centres', centres)


def test_a_source_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved(network().state_dict(), tmp_path / 'in.pth')
    before = path.read_bytes()
    assert 'written over what is read' in refused(capsys, path, path, path)
    assert path.read_bytes() == before


def test_an_older_result_stays_if_the_new_one_fails(
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
