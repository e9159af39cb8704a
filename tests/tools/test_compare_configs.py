"""Tests of the comparison of configs, on logs written by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmdet_ext.analysis.comparison import (
    RunResult,
    best_names,
    comparison_table,
    noise_line,
    noise_of,
    read_result,
)
from mmdet_ext.studies import config_runs
from tests._helpers.tools import load_tool

compare_configs = load_tool('train/compare_configs.py')


def logged_run(folder: Path, seed: int, score: float) -> None:
    """Write the logs of mim train and mim test, with three iterations of training."""
    train = folder / '20260101_000000' / 'vis_data'
    train.mkdir(parents=True)
    lines = [
        {'loss': 3.0 - i, 'loss_cls': 1.0, 'time': 0.5 + i, 'epoch': 1, 'iter': i, 'step': i}
        for i in (1, 2, 3)
    ]
    lines.append({'coco/bbox_mAP': score - 0.1, 'step': 1})
    (train / 'scalars.json').write_text('\n'.join(map(json.dumps, lines)))
    test = folder / 'test' / '20260101_000001'
    test.mkdir(parents=True)
    metrics = {
        'coco/bbox_mAP': score,
        'coco/bbox_mAP_50': score + 0.2,
        'coco/bbox_mAP_75': score / 2,
        'coco/RBC_precision': score,
        'time': 0.1,
    }
    (test / '20260101_000001.json').write_text(json.dumps(metrics))


def test_a_run_is_read_from_its_logs(tmp_path: Path) -> None:
    logged_run(tmp_path, 0, 0.5)
    result = read_result('a', 0, tmp_path)
    assert result.metrics['bbox_mAP_50'] == 0.7 and 'time' not in result.metrics
    assert result.seconds_per_iter == 2.5
    assert result.loss == [2.0, 1.0, 0.0] and result.iterations == [1, 2, 3]
    assert [value for _, value in result.val] == [pytest.approx(0.4)]
    assert result.val_metric == 'bbox_mAP'


def test_finished_runs_are_not_repeated_and_all_files_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[str] = []

    def run_mim(command: str, config: Path, *arguments: object, host: str) -> None:
        assert host == 'mmdet'
        commands.append(command)
        if command == 'train':
            folder = Path(str(arguments[1]))
            seed = int(folder.name[-1])
            logged_run(folder, seed, 0.4 + 0.02 * seed + 0.1 * (config.stem == 'ours'))
            (folder / 'last_checkpoint').write_text('x.pth')

    monkeypatch.setattr(config_runs, 'run_mim', run_mim)
    monkeypatch.setenv('OMP_NUM_THREADS', '1')  # main sets it for --jobs
    configs = [tmp_path / 'stock.py', tmp_path / 'ours.py']
    for config in configs:
        config.touch()
    out = tmp_path / 'results' / 'table'
    command = [*map(str, configs), '--out', str(out), '--work-dir', str(tmp_path / 'runs')]
    assert compare_configs.main(command) == 0
    assert commands == ['train', 'test'] * 4
    table = out.with_suffix('.md').read_text()
    assert '| `stock` | 0.410 | 0.610 | 0.205 | 0.410 | 0.400, 0.420 | +0.000 | 2.50 |' in table
    assert '| `ours` | 0.510 | 0.710 | 0.255 | 0.510 | 0.500, 0.520 | +0.100 | 2.50 |' in table
    assert out.with_suffix('.png').stat().st_size > 10_000
    runs = [RunResult(**run) for run in json.loads(out.with_suffix('.json').read_text())['runs']]
    assert [(run.config, run.seed) for run in runs] == [
        ('stock', 0),
        ('ours', 0),
        ('stock', 1),
        ('ours', 1),
    ]
    assert compare_configs.main(command) == 0
    assert len(commands) == 8
    # A config named twice, as by a pattern that includes the reference, counts once.
    assert compare_configs.main([str(configs[0]), *command, '--jobs', '2']) == 0
    assert len(commands) == 8 and out.with_suffix('.md').read_text().count('`stock`') == 1
    assert compare_configs.main([*command, '--cfg-options', 'a=1']) == 1
    assert len(commands) == 8
    # Elsewhere the table stands for the runs; the seed that it lacks is run.
    table_file = str(out.with_suffix('.json'))
    elsewhere = [*command[:-1], str(tmp_path / 'other'), '--known', table_file]
    assert compare_configs.main(elsewhere) == 0
    assert len(commands) == 8 and out.with_suffix('.md').read_text() == table
    assert compare_configs.main([*elsewhere, '--seeds', '1', '2']) == 0
    assert commands[8:] == ['train', 'test'] * 2


def test_runs_of_segmentation_use_the_scripts_of_mmseg_and_compare_miou(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts: list[str] = []

    def run_mim(command: str, config: Path, *arguments: object, host: str) -> None:
        hosts.append(host)
        if command == 'test':
            return
        folder = Path(str(arguments[1]))
        score = 60.0 + 5 * (config.stem == 'dice')
        scalars = folder / '20260101_000000' / 'vis_data' / 'scalars.json'
        scalars.parent.mkdir(parents=True)
        lines = [{'loss': 2.0, 'time': 0.5, 'epoch': 1, 'iter': 1, 'step': 1}]
        lines.append({'aAcc': 90.0, 'mIoU': score - 1, 'step': 1})
        scalars.write_text('\n'.join(map(json.dumps, lines)))
        log = folder / 'test' / '20260101_000001' / '20260101_000001.json'
        log.parent.mkdir(parents=True)
        log.write_text(json.dumps({'mIoU': score, 'IoU_triangle': score / 3, 'time': 0.1}))
        # A later file of the metric.
        (log.parent / 'segmentation.json').write_text('{\n"confusion": []\n}')
        (folder / 'last_checkpoint').write_text('x.pth')

    monkeypatch.setattr(config_runs, 'run_mim', run_mim)
    configs = [tmp_path / 'stock.py', tmp_path / 'dice.py']
    for config in configs:
        config.write_text("default_scope = 'mmseg'\n")
    out = tmp_path / 'table'
    command = [*map(str, configs), '--out', str(out), '--work-dir', str(tmp_path / 'runs')]
    command += ['--seeds', '0', '--metrics', 'mIoU', 'IoU_triangle']
    assert compare_configs.main(command) == 0
    assert hosts == ['mmseg'] * 4
    assert (
        '| `dice` | 65.000 | 21.667 | 65.000 | +5.000 | 0.50 |'
        in out.with_suffix('.md').read_text()
    )
    result = read_result('dice', 0, tmp_path / 'runs' / 'dice' / 'seed0')
    assert [value for _, value in result.val] == [64.0] and 'time' not in result.metrics


def test_gaps_are_over_the_seeds_that_both_have() -> None:
    def run(config: str, seed: int, score: float) -> RunResult:
        metrics = dict.fromkeys(['bbox_mAP', 'bbox_mAP_50', 'bbox_mAP_75', 'RBC_precision'], score)
        return RunResult(config, seed, metrics, 1.0, [], [], [])

    first = [run('stock', 0, 0.3), run('a', 0, 0.32), run('b', 0, 0.5), run('c', 0, 0.4)]
    assert best_names(first, ['a', 'b', 'c'], 2) == ['b', 'c']
    # b leads with its first seed alone; a is compared with the reference on the first seed alone.
    results = [*first, run('stock', 1, 0.4), run('b', 1, 0.3)]
    table = comparison_table(['stock', 'a', 'b', 'c'], results).splitlines()
    assert '| 0.320 | +0.020 | 1.00 |' in table[3]
    assert '| 0.500, 0.300 | +0.050 | 1.00 |' in table[4]


def _result(config: str, seed: int, score: float) -> RunResult:
    return RunResult(config, seed, {'bbox_mAP': score}, 1.0, [1], [1.0], [])


def test_noise_is_the_pooled_deviation_of_seeds() -> None:
    # Deviations of +-0.01 about the first mean, +-0.03 about the second: squares 2e-4 + 18e-4.
    results = [
        _result('a', 0, 0.49),
        _result('a', 1, 0.51),
        _result('b', 0, 0.57),
        _result('b', 1, 0.63),
    ]
    noise = noise_of(results)
    assert noise is not None and (noise.runs, noise.configs) == (4, 2)
    assert noise.deviation == pytest.approx((20e-4 / 2) ** 0.5)
    assert noise.gap == pytest.approx(2 * noise.deviation)
    # With a row of one seed a gap has to be larger by sqrt(2), and its seed tells no spread.
    wider = noise_of([*results, _result('c', 0, 0.2)])
    assert wider is not None and (wider.runs, wider.configs) == (4, 2)
    assert wider.gap == pytest.approx(2**0.5 * noise.gap)
    assert 'deviation of 0.032 in mAP (4 runs of 2 configs)' in noise_line(results)


def test_interval_of_three_seeds_by_hand() -> None:
    # Pooled over 4 degrees of freedom: squares 2e-4 + 8e-4, and Student's t is 2.776.
    results = [
        *(_result('a', seed, score) for seed, score in enumerate((0.49, 0.50, 0.51))),
        *(_result('b', seed, score) for seed, score in enumerate((0.58, 0.60, 0.62))),
    ]
    noise = noise_of(results)
    assert noise is not None and noise.degrees == 4
    assert noise.interval(3) == pytest.approx(2.776 * (10e-4 / 4 / 3) ** 0.5, rel=1e-3)
    head, _, first, second = comparison_table(['a', 'b'], results, ['bbox_mAP']).splitlines()
    assert '| mAP by seed | mAP, 95 % interval | mAP to first |' in head
    assert '| 0.490, 0.500, 0.510 | 0.475 to 0.525 | +0.000 |' in first
    assert '| 0.575 to 0.625 | +0.100 |' in second


def test_one_seed_per_config_tells_no_noise() -> None:
    results = [_result('a', 0, 0.5), _result('b', 0, 0.6)]
    assert noise_of(results) is None
    assert 'one seed' in noise_line(results)


def test_any_metric_can_rank_and_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_once(config: Path, seed: int, *_: object) -> RunResult:
        lead = {'a': 0.0, 'b': 0.1, 'c': 0.2}[config.stem]
        return RunResult(
            config.stem, seed, {'auc': 0.9 - lead, 'tar@far=1e-02': 0.5 + lead}, 1.0, [1], [2.0], []
        )

    monkeypatch.setattr(config_runs, 'run_once', run_once)
    configs = [tmp_path / f'{name}.py' for name in 'abc']
    for config in configs:
        config.touch()
    command = [*map(str, configs), '--seeds', '0', '--best', '1', '--best-seeds', '5']
    command += ['--out', str(tmp_path / 'x'), '--metrics']
    assert compare_configs.main([*command, 'tar@far=1e-02', 'auc']) == 0
    table = (tmp_path / 'x.md').read_text()
    assert '| config | tar@far=1e-02 | auc | tar@far=1e-02 by seed |' in table
    assert '| `a` | 0.500 | 0.900 | 0.500, 0.500 | +0.000 |' in table
    assert '| `b` | 0.600 | 0.800 | 0.600 | +0.100 |' in table
    assert '| `c` | 0.700 | 0.700 | 0.700, 0.700 | +0.200 |' in table
    assert '--metrics tar@far=1e-02 auc' in table
    capsys.readouterr()
    assert compare_configs.main([*command, 'tar']) == 1
    assert 'the test of a gave no tar (--metrics); it gave auc, tar@' in capsys.readouterr().err


def test_bad_input_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare_configs.main([str(tmp_path / 'no.py'), '--out', str(tmp_path / 'x')]) == 2
    assert 'no such config' in capsys.readouterr().err
    (tmp_path / 'open.py').write_text('model = dict(')
    assert compare_configs.main([str(tmp_path / 'open.py'), '--out', str(tmp_path / 'x')]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert 'open.py: SyntaxError' in line
    for folder in ('a', 'b'):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / 'same.py').touch()
    known = [str(tmp_path / 'a/same.py'), '--out', str(tmp_path / 'x'), '--known']
    for file in ('none.json', 'list.json'):
        (tmp_path / 'list.json').write_text('{"runs": [{"config": "a"}]}')
        assert compare_configs.main([*known, str(tmp_path / file)]) == 2
        assert f'{file} is no comparison' in capsys.readouterr().err
    both = [str(tmp_path / folder / 'same.py') for folder in ('a', 'b')]
    assert compare_configs.main([*both, '--out', str(tmp_path / 'x')]) == 2
    assert 'two configs are called same' in capsys.readouterr().err
    with pytest.raises(SystemExit):
        compare_configs.main(['x.py', '--out', 'x', '--seeds', '0', '1', '--best', '2'])
    assert 'must differ' in capsys.readouterr().err
