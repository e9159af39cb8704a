"""Tests of tools/data/anchors.py: anchors of COCO files and VOC folders, seeds, bad input."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests._helpers.tools import load_tool
from tests.data.coco.sized_boxes import BOXES, write_coco

main = load_tool('data/anchors.py').main


def run(out: Path, *arguments: object) -> dict[str, Any]:
    assert main([*map(str, arguments), '--out', str(out)]) == 0
    return dict(json.loads(out.read_text()))


def test_the_tool_writes_anchors_with_their_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_coco(tmp_path / 'a.json')
    arguments = ('--input', 160, 200, '--keep-ratio', '--anchors', 2, '--clusters', 1, 3)
    found = run(tmp_path / 'out.json', source, *arguments, '--stride', 16)
    # Boxes are 20 x 20 twice, 40 x 20, 40 x 40 and 40 x 44.
    assert found['anchors_px'] == [[26.67, 20.0], [40.0, 42.0]]
    assert found['anchors_cells'] == [[1.6667, 1.25], [2.5, 2.625]]
    assert found['counts'] == [3, 2]
    overlaps = [20 / (80 / 3)] * 2 + [(80 / 3) / 40, 40 / 42, 42 / 44]
    assert found['mean_iou'] == pytest.approx(np.mean(overlaps))
    assert list(found['mean_iou_by_number']) == ['1', '2', '3']
    assert found['boxes'] == 5 and found['images'] == 2 and found['input'] == [160, 200]
    printed = capsys.readouterr().out
    assert '5 boxes in 2 images' in printed and 'left out: 1 boxes, unusable' in printed
    assert f'{found["mean_iou"]:.4f}' in printed
    header = (tmp_path / 'out.png').read_bytes()[:24]
    assert header[:4] == b'\x89PNG' and min(struct.unpack('>II', header[16:24])) > 200


def test_the_tool_checks_the_anchors_of_a_config(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_coco(tmp_path / 'a.json')
    arguments = [source, '--input', 160, 200, '--keep-ratio', '--anchors', 2, '--clusters', 2]
    config = tmp_path / 'config.py'
    # Boxes are 20 x 20 twice, 40 x 20, 40 x 40 and 40 x 44: three are 4 times an anchor of 10 px.
    config.write_text('model = dict(bbox_head=dict(anchors=[[(10, 10)], [(11, 44)]]))')
    found = run(tmp_path / 'out.json', *arguments, '--config', config)
    assert found['recall'][str(config)] == {
        'recall': pytest.approx(1.0),
        'per_box': pytest.approx(1.4),
    }
    assert found['recall']['these anchors']['recall'] == 1 and found['ratio'] == 4
    assert 'warning' not in capsys.readouterr().out
    config.write_text(
        'model = dict(bbox_head=dict(anchor_generator=dict(base_sizes=[[(10, 10)]])))'
    )
    found = run(tmp_path / 'out.json', *arguments, '--config', config)
    assert found['recall'][str(config)]['recall'] == pytest.approx(0.4)
    assert 'warning: below 98%' in capsys.readouterr().out
    for text, message in (
        ('model = dict(bbox_head=dict(anchors=[(1, 2)]))', 'has no anchors per level'),
        ('model = dict(bbox_head=dict())', 'has no anchors per level'),
        ('model = 1 / 0', 'cannot be read: ZeroDivisionError'),
    ):
        config.write_text(text)
        out = tmp_path / 'new' / 'out.json'
        assert main([*map(str, arguments), '--config', str(config), '--out', str(out)]) == 2
        assert message in capsys.readouterr().err and not out.parent.exists()


def test_a_repeat_is_equal_and_a_seed_may_be_chosen(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    boxes = [{'bbox': [0, 0, *map(float, rng.integers(2, 49, 2))]} for _ in range(40)]
    source = write_coco(tmp_path / 'a.json', boxes)
    one = run(tmp_path / 'b.json', source, '--clusters', 4)
    assert run(tmp_path / 'b.json', source, '--clusters', 4) == one
    others = [run(tmp_path / 'b.json', source, '--seed', seed) for seed in range(4)]
    assert len({str(each['anchors_px']) for each in others}) > 1


def test_wrong_input_is_named_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = write_coco(tmp_path / 'a.json'), tmp_path / 'out' / 'b.json'
    empty = write_coco(tmp_path / 'empty.json', BOXES[5:])
    for arguments, message in (
        ([tmp_path / 'no.json'], 'cannot be read as json'),
        ([tmp_path], 'A folder must be of VOC form'),
        ([empty], 'is left to cluster; left out:'),
        ([source, '--clusters', '9'], 'k must be at most'),
        ([source, '--clusters', '0'], 'k must be at least 1, got 0'),
        ([source, '--input', '0', '416'], '1 px or more, got 0 x 416'),
        ([source, '--stride', '0'], '--stride must be at least 1 px, got 0'),
    ):
        assert main([*map(str, arguments), '--out', str(out)]) == 2
        assert message in capsys.readouterr().err
    assert main([str(source), '--out', str(tmp_path / 'b.png')]) == 2
    assert 'must be a json file' in capsys.readouterr().err
    assert not out.parent.exists() and not (tmp_path / 'b.png').exists()


def test_bccd(shared_data: Path, tmp_path: Path) -> None:
    """BCCD has 4886 boxes with an area."""
    found = run(tmp_path / 'a.json', shared_data / 'bccd', '--clusters', 1, 3)
    assert found['boxes'] == 361 + 4155 - 2 + 372 and found['images'] == 364
    ious = list(found['mean_iou_by_number'].values())
    assert ious == sorted(ious) and ious[-1] > 0.8
