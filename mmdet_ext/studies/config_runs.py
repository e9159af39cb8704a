"""Runs of configs with several seeds, which are not repeated once they are finished."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from mmengine.config import Config

from mmdet_ext.analysis.comparison import RunResult, read_result
from mmdet_ext.utils.files import write_json
from mmdet_ext.utils.mim import MimError, run_mim


def run_all(
    configs: Sequence[Path],
    seeds: Sequence[int],
    work_dir: Path,
    options: Sequence[str] = (),
    jobs: int = 1,
) -> list[RunResult]:
    """Train and test each config with each seed.

    Args:
        configs: Config files of different names.
        seeds: The seeds; all configs run with one seed before the next.
        work_dir: Folder of the runs, ``<config>/seed<seed>`` each.
        options: Options for ``--cfg-options``, as KEY=VALUE.
        jobs: Number of runs at a time, at least 1.

    Returns:
        The results, by seed and then by config.

    Raises:
        MimError: If a run fails; runs that have not begun are not started then.
    """
    with ThreadPoolExecutor(jobs) as pool:
        runs = [
            pool.submit(run_once, config, seed, work_dir / config.stem / f'seed{seed}', options)
            for seed in seeds
            for config in configs
        ]
        try:
            return [run.result() for run in runs]
        except MimError:
            pool.shutdown(cancel_futures=True)
            raise


def run_once(config: Path, seed: int, folder: Path, options: Sequence[str]) -> RunResult:
    """Train and test one config with one seed in ``folder``, or read the finished run there.

    Raises:
        MimError: If training or testing fails, or the finished run had other options.
    """
    done = folder / 'result.json'
    if done.is_file():
        print(f'{config.stem}, seed {seed}: done before, in {folder}')
        content = json.loads(done.read_text(encoding='utf-8'))
        if content.pop('options') != list(options):
            raise MimError(f'{done} was made with other --cfg-options; give another --work-dir')
        return RunResult(**{**content, 'val': [tuple(point) for point in content['val']]})
    common = ['--cfg-options', f'randomness.seed={seed}', *options]
    host = _host(config)
    run_mim('train', config, '--work-dir', folder, *common, host=host)
    checkpoint = Path((folder / 'last_checkpoint').read_text(encoding='utf-8').strip())
    tested = ('--checkpoint', checkpoint, '--work-dir', folder / 'test')
    run_mim('test', config, *tested, *common, host=host)
    result = read_result(config.stem, seed, folder)
    write_json(done, {**asdict(result), 'options': list(options)})
    return result


def take_over(table: Path, work_dir: Path, options: Sequence[str] = ()) -> int:
    """Put the runs of a finished comparison into ``work_dir``, so that they are not repeated.

    Runs that ``work_dir`` has stay as they are.

    Args:
        table: JSON file of the comparison.
        work_dir: Folder of the runs, as for `run_all`.
        options: Options with which they were made.

    Returns:
        Number of runs that were put there.

    Raises:
        ValueError: If the file is no such comparison.
    """
    try:
        runs = json.loads(table.read_text(encoding='utf-8'))['runs']
        results = [
            RunResult(**{**run, 'val': [tuple(point) for point in run['val']]}) for run in runs
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f'{table} is no comparison that this tool has written: {error}') from error
    added = 0
    for result in results:
        done = work_dir / result.config / f'seed{result.seed}' / 'result.json'
        if not done.is_file():
            write_json(done, {**asdict(result), 'options': list(options)})
            added += 1
    return added


def _host(config: Path) -> str:
    """Return the host whose scripts run a config: that of its scope, mmdet in any other."""
    scope = Config.fromfile(config).get('default_scope')
    return scope if scope in ('mmseg', 'mmpose') else 'mmdet'
