"""Folders of checkpoints in one process: which are complete, which fit, which are kept."""

from __future__ import annotations

import json
import pickle
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mmdet_ext.face.sharding import checkpoint_tables
from mmdet_ext.face.sharding.checkpoint_folders import (
    complete_folders,
    remove_leftovers,
    set_damaged_aside,
)
from mmdet_ext.face.sharding.checkpoints import (
    CheckpointWriter,
    Peers,
    describe,
    export_checkpoint,
    latest_checkpoint,
    read_checkpoint,
    restore,
    take_state,
)
from mmdet_ext.face.sharding.shards import writing_shards
from tests._helpers.tools import load_tool
from tests.face.sharding.checkpoint_stub import (
    StubMargin,
    StubModel,
    optimizer_of,
    snapshot,
    train,
)

export = load_tool('face/export_sharded.py').main


def trained(**options: Any) -> tuple[StubModel, torch.optim.Optimizer]:
    kind = options.pop('kind', 'sgd')
    model = StubModel(Peers(), **options)
    optimizer = optimizer_of(model, kind)
    train(model, optimizer, 0, 2)
    return model, optimizer


def write(root: Path, *steps: int, max_keep: int = -1, background: bool = False) -> StubModel:
    model, optimizer = trained()
    peers = Peers()
    writer = CheckpointWriter(root, peers, max_keep, background)
    for step in steps:
        with writing_shards():
            content = {'meta': {'iter': step}, 'state_dict': model.state_dict()}
        state = take_state(model, content, optimizer, peers)
        writer.write(f'iter_{step}', state, describe(model, 0, step, peers))
    writer.wait()
    return model


def load(folder: Path, model: StubModel, optimizer: Any = None) -> None:
    peers = Peers()
    state = read_checkpoint(folder, model, peers, model_only=optimizer is None)
    restore(model, state, peers, folder, optimizer)


def test_the_background_writes_what_was_there_at_the_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, optimizer = trained()
    peers, changed = Peers(), threading.Event()
    original = checkpoint_tables.write_tables

    def write_late(*args: Any) -> None:
        assert changed.wait(60)
        original(*args)

    monkeypatch.setattr(checkpoint_tables, 'write_tables', write_late)
    writer = CheckpointWriter(tmp_path, peers, background=True)
    with writing_shards():
        content = {'state_dict': model.state_dict()}
    before = snapshot(model, optimizer)
    state = take_state(model, content, optimizer, peers)
    writer.write('iter_1', state, describe(model, 0, 1, peers))
    train(model, optimizer, 2, 4)
    assert latest_checkpoint(tmp_path) is None
    changed.set()
    writer.wait()
    load(tmp_path / 'iter_1', model, optimizer)
    after = snapshot(model, optimizer)
    assert all(torch.equal(after[name], value) for name, value in before.items())


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


@pytest.mark.parametrize('background', [False, True])
def test_the_number_of_checkpoints_is_kept(background: bool, tmp_path: Path) -> None:
    write(tmp_path, 8, 9, 10, max_keep=2, background=background)
    assert names(tmp_path) == ['iter_10', 'iter_9']
    assert latest_checkpoint(tmp_path) == tmp_path / 'iter_10'


def test_there_is_no_latest_of_nothing(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path / 'absent') is None


def test_a_checkpoint_is_never_written_into_again(tmp_path: Path) -> None:
    write(tmp_path, 1)
    with pytest.raises(FileExistsError, match='never written into again'):
        write(tmp_path, 1)
    load(tmp_path / 'iter_1', StubModel(Peers()))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    'shard cut': (lambda one: cut(one / '__0_0.distcp'), '__0_0.distcp should have'),
    'rest cut': (lambda one: cut(one / 'replicated.pth'), 'replicated.pth should have'),
    'shard absent': (lambda one: (one / '__0_0.distcp').unlink(), 'it is absent'),
    'manifest cut': (lambda one: cut(one / 'manifest.json'), 'manifest.json is damaged'),
    'manifest absent': (lambda one: (one / 'manifest.json').unlink(), 'has no manifest.json'),
}


@pytest.mark.parametrize('damage', DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_and_named(damage: str, tmp_path: Path) -> None:
    write(tmp_path, 1, 2)
    change, message = DAMAGES[damage]
    text = (tmp_path / 'iter_2' / 'manifest.json').read_text()
    if damage == 'manifest cut':
        (tmp_path / 'iter_2' / 'manifest.json').write_text(text.rstrip())
    change(tmp_path / 'iter_2')
    assert latest_checkpoint(tmp_path) == tmp_path / 'iter_1'
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load(tmp_path / 'iter_2', StubModel(Peers()))


def test_damaged_checkpoints_are_set_aside_for_their_names(tmp_path: Path) -> None:
    for _ in range(2):
        write(tmp_path, 1)
        (tmp_path / 'iter_1' / 'manifest.json').unlink()
        (line,) = set_damaged_aside(tmp_path)
        assert 'has no manifest.json' in line
    write(tmp_path, 1)
    assert names(tmp_path) == ['iter_1', 'iter_1.damaged', 'iter_1.damaged_2']
    assert set_damaged_aside(tmp_path) == []


@pytest.mark.parametrize('ending', ['.writing', '.removing'])
def test_leftovers_are_no_checkpoints_and_are_removed(ending: str, tmp_path: Path) -> None:
    write(tmp_path, 1, 2)
    left = (tmp_path / 'iter_2').rename(tmp_path / f'iter_2{ending}')
    assert latest_checkpoint(tmp_path) == tmp_path / 'iter_1'
    with pytest.raises(ValueError, match='was never completed'):
        load(left, StubModel(Peers()))
    assert remove_leftovers(tmp_path) == [left.name]
    assert names(tmp_path) == ['iter_1']


def test_a_folder_of_a_later_layout_is_refused(tmp_path: Path) -> None:
    write(tmp_path, 1)
    path = tmp_path / 'iter_1' / 'manifest.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), 'version': 2}))
    (line,) = complete_folders(tmp_path)[1].values()
    assert 'version 2 of the layout' in line and 'update' in line


def other_margin(model: StubModel) -> None:
    model.head.margin = type('OtherMargin', (StubMargin,), {})()


def other_layer(model: StubModel) -> None:
    model.backbone.append(torch.nn.Linear(2, 2))


def other_width(model: StubModel) -> None:
    model.backbone[0] = torch.nn.Linear(4, 2)


REFUSED: dict[str, tuple[dict[str, Any], Callable[[StubModel], None], str]] = {
    'classes': (dict(classes=11), lambda _: None, "classes of 'head' is 10 there and 11 here"),
    'centres': (dict(each=1), lambda _: None, "rows_per_class of 'head' is 2 there and 1 here"),
    'margin': ({}, other_margin, "'StubMargin' there and 'OtherMargin' here"),
    'optimizer': (dict(kind='adamw'), lambda _: None, 'trained by SGD, this training uses AdamW'),
    'key': ({}, other_layer, 'it lacks backbone.2.bias, backbone.2.weight'),
    'shape': ({}, other_width, r'backbone.0.weight is \(2, 3\) there, \(2, 4\) here'),
}


@pytest.mark.parametrize('case', REFUSED)
def test_what_does_not_fit_is_named_and_nothing_is_loaded(case: str, tmp_path: Path) -> None:
    write(tmp_path, 1)
    options, change, message = REFUSED[case]
    model, optimizer = trained(**options)
    change(model)
    before = snapshot(model, optimizer)
    with pytest.raises(ValueError, match=message):
        load(tmp_path / 'iter_1', model, optimizer)
    after = snapshot(model, optimizer)
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_a_table_without_rows_of_the_index_is_named(tmp_path: Path) -> None:
    write(tmp_path, 1)
    path = tmp_path / 'iter_1' / '.metadata'
    index = pickle.loads(path.read_bytes())
    del index.state_dict_metadata['optimizer//head.weight/momentum_buffer']
    rewrite(path, pickle.dumps(index))
    model, optimizer = trained()
    with pytest.raises(ValueError, match=r"lacks the table 'optimizer//head\.weight/momentum"):
        load(tmp_path / 'iter_1', model, optimizer)


class Attack:
    def __reduce__(self) -> Any:
        return print, ('run',)


def rewrite(path: Path, content: bytes) -> None:
    """Replace a file and its size in the manifest."""
    path.write_bytes(content)
    manifest = path.with_name('manifest.json')
    facts = json.loads(manifest.read_text())
    facts['files'][path.name] = len(content)
    manifest.write_text(json.dumps(facts))


@pytest.mark.parametrize('name', ['.metadata', 'replicated.pth'])
def test_no_file_runs_code(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, 1)
    path = tmp_path / 'iter_1' / name
    if name == '.metadata':
        rewrite(path, pickle.dumps(Attack()))
    else:
        torch.save(Attack(), tmp_path / 'attack.pth')
        rewrite(path, (tmp_path / 'attack.pth').read_bytes())
    with pytest.raises(RuntimeError, match='could run code'):
        load(tmp_path / 'iter_1', StubModel(Peers()))
    assert 'run' not in capsys.readouterr().out.split()


def test_the_export_is_a_plain_checkpoint_of_the_rest(tmp_path: Path) -> None:
    model = write(tmp_path, 1)
    path = tmp_path / 'plain.pth'
    written = export_checkpoint(tmp_path / 'iter_1', path)
    content = torch.load(path)
    assert content['meta'] == {'iter': 1}
    assert (
        sorted(content['state_dict'])
        == written
        == sorted(f'backbone.{key}' for key in model.backbone.state_dict())
    )
    for name, value in model.backbone.state_dict().items():
        assert torch.equal(content['state_dict'][f'backbone.{name}'], value)


def test_the_export_with_centres_has_the_whole_table(tmp_path: Path) -> None:
    model = write(tmp_path, 1)
    export_checkpoint(tmp_path / 'iter_1', tmp_path / 'plain.pth', centers=True)
    other = StubModel(Peers())
    other.load_state_dict(torch.load(tmp_path / 'plain.pth')['state_dict'])
    assert torch.equal(other.head.weight, model.head.weight)
    assert torch.equal(other.head.ages, model.head.ages)


def test_a_checkpoint_may_be_moved(tmp_path: Path) -> None:
    model = write(tmp_path / 'old', 1)
    shutil.move(tmp_path / 'old' / 'iter_1', tmp_path / 'best')
    other = StubModel(Peers())
    load(tmp_path / 'best', other)
    assert torch.equal(other.head.weight, model.head.weight)


@pytest.mark.parametrize(('name', 'step'), [('iter_1', 1), ('iter_2', 2), ('', 2)])
def test_the_tool_exports_a_checkpoint_or_the_latest(
    name: str, step: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, 1, 2)
    out = tmp_path / 'out.pth'
    assert export([str(tmp_path / name), str(out)]) == 0
    assert capsys.readouterr().out == f'{tmp_path / f"iter_{step}"}: 7 tensors in {out}\n'
    content = torch.load(out)
    assert content['meta'] == {'iter': step} and 'head.weight' not in content['state_dict']


def test_the_tool_exports_centres(tmp_path: Path) -> None:
    model = write(tmp_path, 1)
    assert export([str(tmp_path), str(tmp_path / 'out.pth'), '--centers']) == 0
    weight = torch.load(tmp_path / 'out.pth')['state_dict']['head.weight']
    assert torch.equal(weight, model.head.weight)


@pytest.mark.parametrize(
    ('folder', 'out', 'message'),
    [
        ('absent', 'out.pth', 'there is no checkpoint folder'),
        ('.', 'out.pth', 'has no manifest.json'),
        ('saved', 'out.onnx', 'out must end in .pth'),
    ],
)
def test_bad_input_of_the_tool_ends_in_one_line(
    folder: str, out: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / 'saved', 1)
    assert export([str(tmp_path / folder), str(tmp_path / out)]) == 2
    shown = capsys.readouterr().err
    assert message in shown and shown.count('\n') == 1
    assert not (tmp_path / out).exists()
