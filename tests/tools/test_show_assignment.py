"""Pictures of label assignment, for our assigners and stock's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.structures import InstanceData

from mmdet_ext.detection.assignment_record import recorded_assignments
from mmdet_ext.testing.cases import ASSIGNERS
from mmdet_ext.testing.configs import CONFIGS, shrink
from tools import plot_assigners, show_assignment

OURS = CONFIGS / 'detection' / 'atss_r18_fpn_12e_bccd.py'
STOCK = CONFIGS / 'detection' / 'atss_r18_fpn_stock_12e_bccd.py'
TWO_STAGE = CONFIGS / 'losses' / 'bccd' / 'faster_rcnn_stock_4e_bccd.py'


@pytest.fixture
def configs(shapes_root: Path, tmp_path: Path) -> list[str]:
    paths = []
    for leaf in (OURS, STOCK, TWO_STAGE):
        path = tmp_path / f'{leaf.stem}.py'
        shrink(leaf, shapes_root).dump(path)
        paths.append(str(path))
    return paths


def test_stock_beside_ours(configs: list[str], tmp_path: Path) -> None:
    out = tmp_path / 'out'
    assert show_assignment.main(
        [configs[0], '--versus', configs[1], '--count', '2', '--out', str(out)]
    ) == 0
    pictures = json.loads((out / 'counts.json').read_text())['pictures']
    assert len(pictures) == 2
    for name, (ours, stock) in pictures.items():
        assert 'mmdet.ATSSAssigner' in stock.pop('title')
        assert 'ATSSAssigner' in ours.pop('title')
        assert ours == stock
        assert ours['positive'] == sum(ours['priors_of_box']) > 0
        assert len(ours['priors_of_box']) == ours['boxes'] and len(ours['levels']) == 5
        assert sum(level['priors'] for level in ours['levels']) == ours['priors']
        height, width = cv2.imread(str(out / f'{name}.png')).shape[:2]
        assert width > 1000 and height > 300


def test_two_stages_by_name_with_a_checkpoint(
    configs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    register_all_modules()
    model = MODELS.build(Config.fromfile(configs[2]).model)
    torch.save({'state_dict': model.state_dict()}, tmp_path / 'x.pth')
    args = [configs[2], '--checkpoint', str(tmp_path / 'x.pth'), '--out', str(tmp_path / 'out')]
    assert show_assignment.main([*args, '--count', '1']) == 0
    (name,) = json.loads((tmp_path / 'out' / 'counts.json').read_text())['pictures']
    assert show_assignment.main([*args, '--images', f'{name}.jpg', '1']) == 0
    pictures = json.loads((tmp_path / 'out' / 'counts.json').read_text())['pictures']
    assert name in pictures and len(pictures) == 2
    titles = [row['title'] for row in pictures[name]]
    assert ['in rpn_head' in titles[0], 'in roi_head' in titles[1]] == [True, True]
    assert show_assignment.main([*args, '--images', 'nobody.jpg']) == 2
    assert 'neither a number below' in capsys.readouterr().err


def test_bad_input(
    configs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ['--out', str(tmp_path / 'out')]
    for args, message in (
        ([str(tmp_path / 'no.py')], 'no such config'),
        ([configs[0], '--checkpoint', str(tmp_path / 'no.pth')], 'no such checkpoint'),
        ([configs[0], '--cfg-options', 'a'], 'is not KEY=VALUE'),
    ):
        assert show_assignment.main([*args, *out]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('scope', ['mmdet', 'mmdet_ext'])
def test_levels_are_told_by_the_priors_where_the_head_gives_none(scope: str) -> None:
    """RetinaNet's anchors by looking them up; all is as it was afterwards."""
    config: dict[str, Any] = dict(
        type=f'{scope}.RetinaHead', num_classes=3, in_channels=8, stacked_convs=1, feat_channels=8,
        anchor_generator=dict(type='AnchorGenerator', octave_base_scale=4, scales_per_octave=3,
                              ratios=[0.5, 1.0, 2.0], strides=[8, 16, 32]),
        train_cfg=Config(dict(
            assigner=dict(type=f'{scope}.MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4,
                          min_pos_iou=0),
            allowed_border=-1, pos_weight=-1)),
    )  # fmt: skip
    head = MODELS.build(config)
    sample = DetDataSample(metainfo=dict(img_shape=(64, 96), pad_shape=(64, 96)))
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor([[8.0, 8, 40, 40], [20, 4, 90, 60]]), labels=torch.tensor([0, 1])
    )
    maps = tuple(torch.zeros(1, 8, 64 // s, 96 // s) for s in (8, 16, 32))
    before = {name: vars(value).copy() for name, value in vars(head).items()
              if hasattr(value, '__dict__')}
    with recorded_assignments(head) as records:
        head.loss(maps, [sample])
    (record,) = records
    assert record.level.bincount().tolist() == [9 * 96, 9 * 24, 9 * 6]
    assert (record.gt_index >= 0).sum() > 2 and len(record.gt_boxes) == 2
    for name, kept in before.items():
        assert set(vars(getattr(head, name))) == set(kept), name


def test_every_assigner_is_drawn(tmp_path: Path) -> None:
    assert plot_assigners.main(['--out', str(tmp_path)]) == 0
    names = {plot_assigners.file_name(case.name) for case in ASSIGNERS}
    assert {path.stem for path in tmp_path.glob('*.png')} == names
    page = (CONFIGS.parent / 'docs' / 'assigners.md').read_text(encoding='utf-8')
    for case in ASSIGNERS:
        assert case.name in page
        assert f'images/assigners/{plot_assigners.file_name(case.name)}.png' in page
