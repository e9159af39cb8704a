"""Tests of the two-stage road, on runs and times written by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmdet_ext.analysis.comparison import RunResult
from mmdet_ext.studies import two_stage_road as study
from tests._helpers.tools import load_tool

tool = load_tool('train/two_stage_road.py')


def test_each_station_has_a_config() -> None:
    road = study.Road(Path('d'), tool.CONFIGS, Path('w'))
    for station in study.STATIONS:
        assert road.config(station).is_file()


def test_proposals_belong_to_the_stations_without_a_proposal_network() -> None:
    road = study.Road(Path('d'), tool.CONFIGS, Path('w'), 'fast', epochs=4)
    searched = study.run_options(road, 'rcnn')
    assert 'test_dataloader.dataset.proposal_file=proposals/fast_val.pkl' in searched
    assert 'train_cfg.val_interval=4' in searched and 'train_cfg.max_epochs=4' in searched
    assert not any('proposal_file' in option for option in study.run_options(road, 'rfcn'))
    assert 'train_cfg.val_interval=1' in study.run_options(road, 'rfcn')


def test_the_command_writes_table_values_and_figure_and_makes_its_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = {'rcnn': 0.25, 'faster_rcnn': 0.5}
    network = {'rcnn': 2.0, 'faster_rcnn': 0.2}

    def run_once(config: Path, seed: int, folder: Path, options: list[str]) -> RunResult:
        station = config.stem.partition('_r18')[0]
        metrics = {'bbox_mAP': scores[station], 'bbox_mAP_50': 0.75}
        return RunResult(config.stem, seed, metrics, 1.5, [], [], [])

    monkeypatch.setattr(study, 'run_once', run_once)
    monkeypatch.setattr(study, '_network_seconds', lambda road, name, folder: network[name])
    monkeypatch.setattr(study, 'search_seconds', lambda road, propose: 0.5)
    out = tmp_path / 'road'
    command = ['--data', str(tmp_path / 'shapes'), '--work-dir', str(tmp_path), '--out', str(out)]
    command += ['--train', '2', '--val', '1', '--stations', 'rcnn', 'faster_rcnn']
    assert tool.main(command) == 0
    page = out.with_suffix('.md').read_text()
    assert '| R-CNN | 0.250 | 0.750 | 0.500 | 2.000 | 2.500 | 1.0 | 1.50 |' in page
    assert '| Faster R-CNN | 0.500 | 0.750 | 0.000 | 0.200 | 0.200 | 12.5 | 1.50 |' in page
    stations = json.loads(out.with_suffix('.json').read_text())['stations']
    assert [station['seconds'] for station in stations] == [2.5, 0.2]
    assert out.with_suffix('.png').stat().st_size > 5_000
    assert '[2/2] Faster R-CNN' in capsys.readouterr().out
    for part in ('train', 'val'):
        assert (tmp_path / f'shapes/proposals/grid_{part}.pkl').is_file()


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['--epochs', '0'], '--epochs must be at least 1, got 0'),
        (['--seed', '-1'], '--seed must be at least 0, got -1'),
        (['--stations', 'yolo'], '--stations has no yolo; there are rcnn, sppnet'),
        (['--proposals', 'magic'], '--proposals must be one of grid, fast, quality, single'),
    ],
)
def test_bad_arguments_are_named(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tool.main(words) == 2
    assert message in capsys.readouterr().err
