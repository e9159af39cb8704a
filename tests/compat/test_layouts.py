"""Tests of the comparison of weights with a model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from mmdet_ext.compat.layouts import compare_layouts
from tests._helpers.tools import load_tool


class Net(nn.Module):
    """Network of a backbone with two layers, and a head."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.layer1 = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4))
        self.backbone.layer2 = nn.Linear(4, 4)
        self.head = nn.Linear(4, classes)


def test_equal_layouts_give_no_line() -> None:
    for model in (Net(3).state_dict(), {}):
        report = compare_layouts(model, dict(model))
        assert report.fits and report.lines() == []
    assert compare_layouts(Net(3).state_dict(), Net(3).state_dict()).counts() == (
        "10 matched, 0 missing in the file, 0 unexpected, 0 of another shape (the model's 10)"
    )


def test_missing_unexpected_and_other_shapes_are_grouped() -> None:
    model, file = Net(3).state_dict(), Net(10).state_dict()
    for name in [name for name in file if 'layer1' in name]:
        file[name.replace('backbone.layer1', 'trunk.stem')] = file.pop(name)
    del file['backbone.layer2.bias']
    report = compare_layouts(model, file)
    assert report.counts() == (
        "1 matched, 7 missing in the file, 6 unexpected, 2 of another shape (the model's 10)"
    )
    assert report.lines() == [
        "backbone.layer1.*: 6 missing in the file (all of the model's)",
        "backbone.layer2.*: 1 missing in the file (of the model's 2)",
        'trunk.stem.*: 6 unexpected, not in the model',
        'head.weight: (10, 4) in the file, (3, 4) in the model',
        'head.bias: (10,) in the file, (3,) in the model',
    ]


def test_the_tool_names_a_head_of_other_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip('mmdet')
    tool = load_tool('train/check_weights.py')
    config, file = tmp_path / 'a.py', tmp_path / 'a.pth'
    config.write_text(
        "default_scope = 'mmdet'\nmodel = dict(type='mmdet.ChannelMapper', in_channels=[4], "
        'kernel_size=1, out_channels=2)\n'
    )
    torch.save({'state_dict': {'convs.0.conv.weight': torch.zeros(3, 4, 1, 1)}}, file)
    assert tool.main([str(config), str(file)]) == 1
    printed = capsys.readouterr().out
    assert 'convs.0.conv.weight: (3, 4, 1, 1) in the file, (2, 4, 1, 1) in the model' in printed
    assert 'convs.0.*: 1 missing in the file' in printed
    assert tool.main([str(config), str(tmp_path / 'no.pth')]) == 2
    assert 'no.pth' in capsys.readouterr().err
