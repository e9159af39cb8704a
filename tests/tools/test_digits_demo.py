"""The demonstration of margins on digits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from sklearn.metrics import roc_auc_score

from mmdet_ext.registry import MARGINS
from tests._helpers.tools import load_tool

digits_demo = load_tool('face/digits_demo.py')
Figures = load_tool('face/digits_demo.py').Figures
main = load_tool('face/digits_demo.py').main

LEAVES = sorted(path.stem.removesuffix('_digits') for path in digits_demo.CONFIGS.glob('*.py'))


def test_every_leaf_can_be_run_by_name() -> None:
    assert sorted(digits_demo.TITLES) == LEAVES
    assert set(digits_demo.DEFAULT_RUNS) <= set(LEAVES)


@pytest.mark.parametrize('name', LEAVES)
def test_leaves_differ_in_head_and_hooks_alone(name: str) -> None:
    ours = Config.fromfile(digits_demo.CONFIGS / f'{name}_digits.py').to_dict()
    base = Config.fromfile(digits_demo.CONFIGS / 'softmax_digits.py').to_dict()
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
        cfg = Config.fromfile(digits_demo.CONFIGS / f'{name}_digits.py')
        (hook,) = [hook for hook in cfg.custom_hooks if 'MarginSchedule' in hook.type]
        assert 0 < cfg.model.head.margin.m == hook.stop < limit
        assert hook.end < cfg.train_cfg.max_epochs


def test_shortening_takes_the_schedules_along(tmp_path: Path) -> None:
    cfg = digits_demo.prepared('arcface', tmp_path, seed=7, epochs=6)
    assert cfg.train_cfg == dict(type='EpochBasedTrainLoop', max_epochs=6, val_interval=6)
    warm, cosine = cfg.param_scheduler
    assert (warm.end, cosine.end, cosine.T_max) == (5, 6, 6)
    assert [hook.get('end') for hook in cfg.custom_hooks] == [None, 3]
    assert cfg.randomness == dict(seed=7) and cfg.work_dir == str(tmp_path / 'arcface')
    whole = digits_demo.prepared('arcface', tmp_path, seed=7, epochs=None)
    assert whole.train_cfg.max_epochs == whole.train_cfg.val_interval == 24
    assert whole.experiment_name != cfg.experiment_name


def test_verification_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 60)
    points = (rng.normal(size=(60, 2)) + 2 * np.eye(3, 2)[labels]).astype(np.float32)
    found = digits_demo.verification(points, labels)
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    upper = np.triu_indices(60, 1)
    same, cosine = (labels[:, None] == labels)[upper], (unit @ unit.T)[upper]
    assert found['auc'] == pytest.approx(roc_auc_score(same, cosine), abs=1e-5)
    # TAR at the threshold that 1 % of the impostor pairs pass.
    impostors = np.sort(cosine[~same])[::-1]
    passing = int(digits_demo.FAR * len(impostors))
    assert found['tar'] == pytest.approx((cosine[same] > impostors[passing]).mean(), abs=0.01)
    assert 0 < found['eer'] < 0.5


def test_accuracy_and_neighbours_by_hand() -> None:
    place = np.array([4, 2])
    points = np.array([[2.0, 0], [0, 9], [5, 1], [1, 3]])
    labels = np.array([4, 2, 2, 4])
    means = digits_demo._class_means(points[:2], labels[:2], place)
    assert means.tolist() == [[1, 0], [0, 1]]
    assert digits_demo._accuracy(points, labels, means, place) == 0.5
    assert digits_demo._neighbour_angle(means) == pytest.approx(90)
    three = np.array([[1, 0], [0, 1], [np.sqrt(0.5), np.sqrt(0.5)]])
    assert digits_demo._neighbour_angle(three) == pytest.approx(45)


def made_up(name: str, angle: float, eer: float, unseen: float) -> Figures:
    return Figures(name, 1, 0.95, angle, 50, 0.99, eer, 0.9, unseen, 0.4, 0.02, 30)


def test_words_follow_the_figures() -> None:
    figures = [made_up('softmax', 3, 0.02, 0.7), made_up('arcface', 2, 0.01, 0.6)]
    assert digits_demo.verdict(figures) == (
        'Narrowest classes here: ArcFace (2.0°); fewest errors on trained digits: ArcFace (EER '
        '1.0%); best on unseen ones: softmax (AUC 0.70).'
    )
    rows = digits_demo.table(figures).splitlines()
    assert rows[2].split() == (
        'softmax 100.0% 95.0% 3.0° (50.0°) 0.9900 2.0% 90.0% 0.700 40.0% 2.0% 30.0'.split()
    )
    assert digits_demo.notes(figures[1])[1] == 'accuracy 95.0%, EER 1.0%'


@pytest.fixture(scope='module')
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demonstration of two runs of two epochs."""
    out = tmp_path_factory.mktemp('digits')
    argv = ['--out', str(out), '--epochs', '2', '--runs', 'softmax', 'arcface', '--seed', '3']
    threads = torch.get_num_threads()
    assert main(argv) == 0
    assert torch.get_num_threads() == threads
    return out


def test_demonstration_writes_what_it_says(shown: Path) -> None:
    content = json.loads((shown / 'digits.json').read_text())
    assert content['seed'] == 3
    assert [run['name'] for run in content['runs']] == ['softmax', 'arcface']
    for run in content['runs']:
        # Two epochs are few, but digits are told apart better than by chance, 1 / 7.
        assert 0.3 < run['test_accuracy'] <= 1
        assert 0.55 < run['seen_auc'] <= 1 and 0.3 < run['unseen_auc'] < 0.9
        assert 0 < run['angle'] < 90 and 0 < run['neighbour_angle'] < 100
        scatter = shown / run['name'] / 'scatter'
        names = sorted(path.name for path in scatter.glob('*.png'))
        assert names == ['epoch_000000.png', 'epoch_000002.png']
        with Image.open(scatter / 'scatter.gif') as animation:
            assert animation.n_frames == 2
    with Image.open(shown / 'digits.png') as picture:
        assert picture.width > 700 and picture.height > 700


def test_same_seed_same_figures(shown: Path, tmp_path: Path) -> None:
    assert main(['--out', str(tmp_path), '--epochs', '2', '--runs', 'arcface', '--seed', '3']) == 0
    first = json.loads((shown / 'digits.json').read_text())['runs'][1]
    second = json.loads((tmp_path / 'digits.json').read_text())['runs'][0]
    for run in (first, second):
        run.pop('seconds')
    assert first == second


@pytest.mark.parametrize(
    ('argv', 'message'),
    [
        (['--seed', '-1'], '--seed must be at least 0, got -1'),
        (['--epochs', '1'], '--epochs must be at least 2, got 1'),
        (['--runs', 'arcface', 'arcface'], '--runs must name each run once'),
    ],
)
def test_bad_input(
    argv: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(['--out', str(tmp_path / 'out'), *argv]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_folder_that_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / 'file').write_text('')
    assert main(['--out', str(tmp_path / 'file')]) == 2
    assert capsys.readouterr().err.startswith('error: ')
