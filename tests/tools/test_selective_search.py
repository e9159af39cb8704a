"""Tests of selective_search: from a COCO file to the proposals that mmdet's data set loads."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mmdet.registry import DATASETS

from tests._helpers.tools import load_tool

main = load_tool('data/selective_search.py').main


def arguments(root: Path, out: Path, *more: str) -> list[str]:
    ann_file = root / 'annotations' / 'instances_train.json'
    return [str(ann_file), '--images', str(root / 'images' / 'train'), '--out', str(out), *more]


@pytest.mark.parametrize('kind', ['mmdet_ext.CocoDataset', 'mmdet.CocoDataset'])
def test_a_data_set_loads_the_proposals_and_scales_and_flips_them(
    kind: str, shapes_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / 'proposals.pkl'
    assert main(arguments(shapes_root, out, '--method', 'grid', '--least', '24')) == 0
    assert 'proposals for 8 images' in capsys.readouterr().out
    flip = [
        dict(type='Resize', scale=(48, 36), keep_ratio=True),
        dict(type='RandomFlip', prob=1.0),
    ]
    data = DATASETS.build(
        dict(
            type=kind,
            data_root=str(shapes_root),
            ann_file='annotations/instances_train.json',
            data_prefix=dict(img='images/train/'),
            metainfo=dict(classes=('circle', 'square', 'triangle')),
            proposal_file=str(out),
            pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='LoadProposals', num_max_proposals=50),
                dict(type='LoadAnnotations', with_bbox=True),
                dict(type='ProposalBroadcaster', transforms=flip),
                dict(type='PackDetInputs'),
            ],
        )
    )
    content = pickle.loads(out.read_bytes())
    for number in range(len(data)):
        sample = data[number]['data_samples']
        boxes = content['/'.join(Path(sample.img_path).parts[-2:])]['bboxes'][:50] / 2
        boxes[:, [0, 2]] = 48 - boxes[:, [2, 0]]
        np.testing.assert_allclose(sample.proposals.bboxes.numpy(), boxes, atol=1e-4)
        assert sample.proposals.scores.shape == (len(boxes),)


def run(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(argv) == 2
    return capsys.readouterr().err


def test_bad_input_ends_in_one_line(
    shapes_root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(cv2, 'ximgproc', raising=False)
    out = tmp_path / 'p.pkl'
    found: dict[str, Any] = {
        '--out must end in .pkl': arguments(shapes_root, tmp_path / 'p.json'),
        'pip install opencv-contrib-python-headless': arguments(shapes_root, out),
        'has no image of': ['--method', 'grid', *arguments(shapes_root, out)[:2], str(tmp_path)]
        + ['--out', str(out)],
        'no_such.json': [str(tmp_path / 'no_such.json'), '--images', '.', '--out', str(out)],
    }
    for message, argv in found.items():
        text = run(argv, capsys)
        assert text.startswith('error: ') and text.count('\n') == 1 and message in text
    assert not out.exists()
    with pytest.raises(SystemExit):
        main(arguments(shapes_root, out, '--least', '0'))
