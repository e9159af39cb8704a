"""Comparison of margins on digits: its configs, its figures and its texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from sklearn.metrics import roc_auc_score

from mmdet_ext.face.studies import digits
from mmdet_ext.face.studies.digits import Figures
from mmdet_ext.registry import MARGINS
from tests._helpers.configs import CONFIGS

DIGITS = CONFIGS / 'ablations' / 'margins' / 'digits'
LEAVES = sorted(path.stem.removesuffix('_digits') for path in DIGITS.glob('*.py'))


def test_every_config_has_a_title() -> None:
    assert sorted(digits.TITLES) == LEAVES


@pytest.mark.parametrize('name', LEAVES)
def test_configs_differ_in_head_and_hooks_alone(name: str) -> None:
    ours = Config.fromfile(DIGITS / f'{name}_digits.py').to_dict()
    base = Config.fromfile(DIGITS / 'softmax_digits.py').to_dict()
    assert MARGINS.get(ours['model'].pop('head')['margin']['type']) is not None
    base['model'].pop('head')
    for cfg in (ours, base):
        cfg.pop('custom_hooks')
    assert ours == base
    assert ours['train_dataloader']['dataset']['digits'] == (0, 1, 2, 3, 4, 5, 6)
    assert ours['default_scope'] == 'mmpretrain'


def test_margins_fit_between_seven_centres_in_the_plane() -> None:
    apart = 2 * np.pi / 7
    for name, limit in (('arcface', apart), ('cosface', 1 - np.cos(apart))):
        cfg = Config.fromfile(DIGITS / f'{name}_digits.py')
        (hook,) = [hook for hook in cfg.custom_hooks if 'MarginSchedule' in hook.type]
        assert 0 < cfg.model.head.margin.m == hook.stop < limit
        assert hook.end < cfg.train_cfg.max_epochs


def test_fewer_epochs_shorten_the_schedules(tmp_path: Path) -> None:
    cfg = digits.prepared('arcface', DIGITS, tmp_path, seed=7, epochs=6)
    assert cfg.train_cfg == dict(type='EpochBasedTrainLoop', max_epochs=6, val_interval=6)
    warm, cosine = cfg.param_scheduler
    assert (warm.end, cosine.end, cosine.T_max) == (5, 6, 6)
    assert [hook.get('end') for hook in cfg.custom_hooks] == [None, 3]
    assert cfg.randomness == dict(seed=7) and cfg.work_dir == str(tmp_path / 'arcface')
    whole = digits.prepared('arcface', DIGITS, tmp_path, seed=7, epochs=None)
    assert whole.train_cfg.max_epochs == whole.train_cfg.val_interval == 24
    assert whole.experiment_name != cfg.experiment_name


def test_verification_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 60)
    points = (rng.normal(size=(60, 2)) + 2 * np.eye(3, 2)[labels]).astype(np.float32)
    found = digits.verification(points, labels)
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    upper = np.triu_indices(60, 1)
    same, cosine = (labels[:, None] == labels)[upper], (unit @ unit.T)[upper]
    assert found['auc'] == pytest.approx(roc_auc_score(same, cosine), abs=1e-5)
    # TAR at the threshold that 1 % of the impostor pairs exceed.
    impostors = np.sort(cosine[~same])[::-1]
    passing = int(digits.FAR * len(impostors))
    assert found['tar'] == pytest.approx((cosine[same] > impostors[passing]).mean(), abs=0.01)
    assert 0 < found['eer'] < 0.5


def test_accuracy_and_neighbour_angle_match_values_by_hand() -> None:
    place = np.array([4, 2])
    points = np.array([[2.0, 0], [0, 9], [5, 1], [1, 3]])
    labels = np.array([4, 2, 2, 4])
    means = digits.class_means(points[:2], labels[:2], place)
    assert means.tolist() == [[1, 0], [0, 1]]
    assert digits.accuracy(points, labels, means, place) == 0.5
    assert digits.neighbour_angle(means) == pytest.approx(90)
    three = np.array([[1, 0], [0, 1], [np.sqrt(0.5), np.sqrt(0.5)]])
    assert digits.neighbour_angle(three) == pytest.approx(45)


def made_up(name: str, angle: float, eer: float, unseen: float) -> Figures:
    return Figures(name, 1, 0.95, angle, 50, 0.99, eer, 0.9, unseen, 0.4, 0.02, 30)


def test_texts_follow_the_figures() -> None:
    figures = [made_up('softmax', 3, 0.02, 0.7), made_up('arcface', 2, 0.01, 0.6)]
    assert digits.verdict(figures) == (
        'Narrowest classes here: ArcFace (2.0°); fewest errors on trained digits: ArcFace (EER '
        '1.0%); best on unseen ones: softmax (AUC 0.70).'
    )
    rows = digits.table(figures).splitlines()
    assert rows[2].split() == (
        'softmax 100.0% 95.0% 3.0° (50.0°) 0.9900 2.0% 90.0% 0.700 40.0% 2.0% 30.0'.split()
    )
    assert digits.notes(figures[1])[1] == 'accuracy 95.0%, EER 1.0%'
