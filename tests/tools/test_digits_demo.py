"""Command line of the demonstration of margins on digits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from mmdet_ext.face.studies.digits import TITLES
from tests._helpers.tools import load_tool

digits_demo = load_tool('face/digits_demo.py')
main = digits_demo.main


def test_default_runs_have_titles() -> None:
    assert set(digits_demo.DEFAULT_RUNS) <= set(TITLES)


@pytest.fixture(scope='module')
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Demonstration of two runs of two epochs, in a folder."""
    out = tmp_path_factory.mktemp('digits')
    argv = ['--out', str(out), '--epochs', '2', '--runs', 'softmax', 'arcface', '--seed', '3']
    threads = torch.get_num_threads()
    assert main(argv) == 0
    assert torch.get_num_threads() == threads
    return out


@pytest.mark.slow
def test_demonstration_writes_figures_and_plots(shown: Path) -> None:
    content = json.loads((shown / 'digits.json').read_text())
    assert content['seed'] == 3
    assert [run['name'] for run in content['runs']] == ['softmax', 'arcface']
    for run in content['runs']:
        # After two epochs digits are classified better than by chance, 1 / 7.
        assert 0.3 < run['test_accuracy'] <= 1
        assert 0.55 < run['seen_auc'] <= 1 and 0.3 < run['unseen_auc'] < 0.9
        assert 0 < run['angle'] < 90 and 0 < run['neighbour_angle'] < 100
        scatter = shown / run['name'] / 'scatter'
        names = sorted(path.name for path in scatter.glob('*.png'))
        assert names == ['epoch_000000.png', 'epoch_000002.png']
        with Image.open(scatter / 'scatter.gif') as animation:
            assert animation.n_frames == 2
    with Image.open(shown / 'digits.png') as image:
        assert image.width > 700 and image.height > 700


@pytest.mark.slow
def test_same_seed_gives_the_same_figures(shown: Path, tmp_path: Path) -> None:
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
def test_bad_arguments_are_named(
    argv: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(['--out', str(tmp_path / 'out'), *argv]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_folder_that_cannot_be_made_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / 'file').write_text('')
    assert main(['--out', str(tmp_path / 'file')]) == 2
    assert capsys.readouterr().err.startswith('error: ')
