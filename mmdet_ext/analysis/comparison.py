"""Results of several configs and seeds: read from the logs of runs, ranked, and as a table."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmdet_ext.analysis.run_report import find_scalars, read_scalars
from mmdet_ext.utils.mim import MimError

#: Metrics of a detector that a table shows; the precision per class is added to them.
COCO_METRICS = ('bbox_mAP', 'bbox_mAP_50', 'bbox_mAP_75')
#: What a test logs beside its metrics.
_TIMES = ('time', 'data_time')


@dataclass(frozen=True)
class RunResult:
    """Result of one config, trained with one seed and tested.

    Attributes:
        config: Name of the config file, without suffix.
        seed: Seed of the training.
        metrics: Metrics of the test by name, without prefix.
        seconds_per_iter: Median over the logged training iterations.
        iterations: Iteration of each logged loss, length N.
        loss: Total loss at those iterations, length N.
        val: (iteration, first validation metric) per validation.
    """

    config: str
    seed: int
    metrics: dict[str, float]
    seconds_per_iter: float
    iterations: list[int]
    loss: list[float]
    val: list[tuple[int, float]]


def read_result(name: str, seed: int, folder: Path) -> RunResult:
    """Read the logs that mim train and mim test left in ``folder`` and its subfolder ``test``."""
    scalars = find_scalars(folder)
    curve = read_scalars(scalars)
    records = [json.loads(line) for line in scalars.read_text(encoding='utf-8').splitlines()]
    seconds = statistics.median(r['time'] for r in records if 'loss' in r)
    # Beside the log a metric may write files of its own.
    logs = [path for path in (folder / 'test').glob('*/*.json') if path.stem == path.parent.name]
    newest = max(logs, key=lambda path: path.stat().st_mtime)
    metrics = json.loads(newest.read_text(encoding='utf-8').splitlines()[-1])
    # A metric is logged with a prefix, as 'coco/bbox_mAP', or without one, as 'mIoU'.
    kept = {
        key.partition('/')[2] or key: float(value)
        for key, value in metrics.items()
        if key not in _TIMES and isinstance(value, (int, float))
    }
    val = [(iteration, value) for iteration, _, value in curve.val]
    return RunResult(name, seed, kept, seconds, curve.iterations, curve.losses['loss'], val)


def results_of(results: Sequence[RunResult], name: str) -> list[RunResult]:
    """Return the results of one config, in their order."""
    return [result for result in results if result.config == name]


def check_metrics(results: Sequence[RunResult], metrics: Sequence[str]) -> None:
    """Raise unless all results have the metrics.

    Raises:
        MimError: If a metric is absent; the message names the metrics that the test gave.
    """
    for run in results:
        absent = [name for name in metrics if name not in run.metrics]
        if absent:
            raise MimError(
                f'the test of {run.config} gave no {", ".join(absent)} (--metrics); it gave '
                f'{", ".join(sorted(run.metrics))}'
            )


def best_names(
    results: Sequence[RunResult], names: Sequence[str], count: int, metric: str = COCO_METRICS[0]
) -> list[str]:
    """Return the ``count`` names whose results have the highest mean of a metric, best first."""

    def score(name: str) -> float:
        return statistics.mean(run.metrics[metric] for run in results_of(results, name))

    return sorted(names, key=score, reverse=True)[:count]


def comparison_table(
    names: Sequence[str], results: Sequence[RunResult], metrics: Sequence[str] = COCO_METRICS
) -> str:
    """Format a Markdown table, one line per config.

    A line has the means of the metrics, the first metric per seed, its mean gap to the first
    config over the seeds that both have, and the median time per iteration.

    Args:
        names: Names of the configs; the first is the reference.
        results: At least one result per config.
        metrics: Metrics to show; those of COCO bring the precision per class with them.
    """
    shown, first = list(metrics), metrics[0]
    if tuple(shown) == COCO_METRICS:
        shown += sorted(k for k in results[0].metrics if k.endswith('_precision'))
    title = [name.removeprefix('bbox_').removesuffix('_precision') for name in shown]
    rows = [
        ['config', *title, f'{title[0]} by seed', f'{title[0]} to first', 's / iteration'],
        ['---'] + ['---:'] * (len(title) + 3),
    ]
    reference = {run.seed: run.metrics[first] for run in results_of(results, names[0])}
    for name in names:
        runs = results_of(results, name)
        by_seed = [run.metrics[first] for run in runs]
        gap = statistics.mean(run.metrics[first] - reference[run.seed] for run in runs)
        rows.append(
            [
                f'`{name}`',
                *(f'{statistics.mean(run.metrics[key] for run in runs):.3f}' for key in shown),
                ', '.join(f'{value:.3f}' for value in by_seed),
                f'{gap:+.3f}',
                f'{statistics.median(run.seconds_per_iter for run in runs):.2f}',
            ]
        )
    return '\n'.join('| ' + ' | '.join(row) + ' |' for row in rows)
