"""Tool that writes a plain checkpoint from a sharded one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mmdet_ext.face.sharding.checkpoints import CheckpointWriter, Peers, describe, take_state
from mmdet_ext.face.sharding.shards import ClassShard
from tests._helpers.tools import load_tool

main = load_tool('face/export_sharded.py').main


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shard, self.rows_per_class = ClassShard(0, 3, 3), 1
        self.weight = nn.Parameter(torch.arange(6.0).view(3, 2))

    def sharded_state(self) -> dict[str, Tensor]:
        return {'weight': self.weight}

    def sharded_parameters(self) -> dict[str, nn.Parameter]:
        return {'weight': self.weight}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    model, peers = nn.ModuleDict({'backbone': nn.Linear(1, 2), 'head': Head()}), Peers()
    writer = CheckpointWriter(tmp_path / 'sharded', peers)
    for step in (1, 2):
        model['backbone'].bias.data.fill_(step)
        content = {'meta': {'iter': step}, 'state_dict': model.state_dict()}
        state = take_state(model, content, None, peers)
        writer.write(f'iter_{step}', state, describe(model, 0, step, peers))
    return tmp_path / 'sharded'


@pytest.mark.parametrize(('name', 'step'), [('iter_1', 1), ('iter_2', 2), ('', 2)])
def test_it_writes_all_but_the_centres(
    name: str, step: int, saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / 'out.pth'
    assert main([str(saved / name), str(out)]) == 0
    assert capsys.readouterr().out == f'{saved / f"iter_{step}"}: 2 tensors in {out}\n'
    content = torch.load(out)
    assert set(content['state_dict']) == {'backbone.weight', 'backbone.bias'}
    assert content['state_dict']['backbone.bias'].tolist() == [step, step]


def test_it_adds_the_centres(saved: Path, tmp_path: Path) -> None:
    assert main([str(saved), str(tmp_path / 'out.pth'), '--centers']) == 0
    weight = torch.load(tmp_path / 'out.pth')['state_dict']['head.weight']
    assert torch.equal(weight, torch.arange(6.0).view(3, 2))


@pytest.mark.parametrize(
    ('folder', 'out', 'message'),
    [
        ('absent', 'out.pth', 'there is no checkpoint folder'),
        ('.', 'out.pth', 'has no manifest.json'),
        ('sharded', 'out.onnx', 'out must end in .pth'),
    ],
)
def test_bad_input_ends_in_one_line(
    folder: str,
    out: str,
    message: str,
    saved: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([str(tmp_path / folder), str(tmp_path / out)]) == 2
    shown = capsys.readouterr().err
    assert message in shown and shown.count('\n') == 1
    assert not (tmp_path / out).exists()
