"""Tests of the tool that draws what a pose estimator finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope

from mmdet_ext.data.synthetic.stick_figures import make_stick_figures
from mmdet_ext.studies.pose_maps import PoseMaps, joint_tags, matched_limbs
from tests._helpers.configs import CONFIGS
from tests._helpers.pose.configs import shrink_pose
from tests._helpers.tools import load_tool

pytest.importorskip('mmpose', reason='mmpose is not installed')
tool = load_tool('analysis/draw_pose.py')


@pytest.fixture(scope='module')
def figures_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('figures') / 'figures'
    make_stick_figures(root, train=4, val=2, width=96, height=96, preview=False)
    return root


def saved(road: str, root: Path, folder: Path) -> list[str]:
    """Write a small config and the weights of an untrained network; return their paths."""
    from mmpose.registry import MODELS
    from mmpose.utils import register_all_modules

    register_all_modules()
    leaf = CONFIGS / 'pose' / f'{road}_small_stick_figures.py'
    cfg = shrink_pose(leaf, root, work_dir=str(folder))
    cfg.dump(folder / 'small.py')
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmpose'):
        torch.save({'state_dict': MODELS.build(cfg.model).state_dict()}, folder / 'x.pth')
    return [str(folder / 'small.py'), str(folder / 'x.pth')]


@pytest.mark.parametrize(
    ('road', 'figures'),
    [
        ('associative_embedding', {'people', 'tags'}),
        ('part_affinity_field', {'people', 'fields', 'matching'}),
    ],
)
def test_figures_of_each_road_are_written(
    road: str,
    figures: set[str],
    figures_root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = saved(road, figures_root, tmp_path)
    assert tool.main([*words, '--out', str(tmp_path / 'out'), '--images', '1', '0']) == 0
    assert {path.stem for path in (tmp_path / 'out').iterdir()} == figures
    assert capsys.readouterr().out.count('.png') == len(figures)
    assert tool.main([*words, '--out', str(tmp_path / 'out'), '--images', '2']) == 2
    assert 'the test set has the images 0 to 1' in capsys.readouterr().err


def test_wrong_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leaf = str(CONFIGS / 'pose' / 'part_affinity_field_small_stick_figures.py')
    assert tool.main([leaf, str(tmp_path / 'x.pth'), '--out', str(tmp_path / 'out')]) == 2
    assert 'no such checkpoint' in capsys.readouterr().err
    assert tool.main(['none.py', 'x.pth', '--out', str(tmp_path / 'out')]) == 2
    assert capsys.readouterr().err == 'error: no such config: none.py\n'


def maps_of(heatmaps: np.ndarray, maps: np.ndarray, found: np.ndarray) -> PoseMaps:
    image = np.zeros((24, 32, 3), np.uint8)
    return PoseMaps(image, heatmaps, maps, np.zeros((0, 2, 3)), found, 4.0)


def test_tags_are_read_at_the_cells_of_joints() -> None:
    tags = np.arange(2 * 6 * 8, dtype=float).reshape(2, 6, 8)
    found = np.array([[[8.0, 4.0, 0.9], [29.0, 21.0, 0.9]]])
    # Cells (2, 1) and (7, 5).
    assert joint_tags(maps_of(np.zeros((2, 6, 8)), tags, found)).tolist() == [[10.0, 95.0]]


def test_the_graph_keeps_the_connections_along_the_field() -> None:
    heatmaps = np.zeros((2, 6, 8), np.float32)
    heatmaps[0, 1, 1] = heatmaps[0, 4, 1] = heatmaps[1, 1, 6] = heatmaps[1, 4, 6] = 0.8
    fields = np.zeros((1, 2, 6, 8), np.float32)
    fields[0, 0, [1, 4]] = 1.0  # both limbs run to the right
    (limb,) = matched_limbs(maps_of(heatmaps, fields, np.zeros((0, 2, 3))), [(0, 1)], [0])
    assert limb.first.tolist() == [[4.0, 4.0], [4.0, 16.0]]
    assert limb.second.tolist() == [[24.0, 4.0], [24.0, 16.0]]
    assert limb.kept.tolist() == [[True, False], [False, True]]
    np.testing.assert_allclose(np.diag(limb.scores), 1.0)
    assert (limb.scores[~limb.kept] < 0.5).all()
