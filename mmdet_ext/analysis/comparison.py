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
#: Seeds of a config from which on a table has intervals.
_FOR_INTERVAL = 3


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
        val_metric: Name of that metric, without prefix; empty in tables of earlier versions.
    """

    config: str
    seed: int
    metrics: dict[str, float]
    seconds_per_iter: float
    iterations: list[int]
    loss: list[float]
    val: list[tuple[int, float]]
    val_metric: str = ''


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
    kept = {
        _bare(key): float(value)
        for key, value in metrics.items()
        if key not in _TIMES and isinstance(value, (int, float))
    }
    val = [(iteration, value) for iteration, _, value in curve.val]
    shown = _bare(curve.val_name or '')
    return RunResult(name, seed, kept, seconds, curve.iterations, curve.losses['loss'], val, shown)


def _bare(metric: str) -> str:
    """Take the prefix off: a metric is logged as 'coco/bbox_mAP', or without one, as 'mIoU'."""
    return metric.partition('/')[2] or metric


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


@dataclass(frozen=True)
class Noise:
    """Spread of a metric over the seeds of one config.

    Attributes:
        deviation: Standard deviation of a run, pooled over the configs with several seeds.
        runs: Number of those runs.
        configs: Number of those configs.
        degrees: Degrees of freedom of the deviation: the runs less one per config.
        gap: Two standard errors of the difference of two means, each over the smallest number of
            seeds that a config has. Smaller gaps are noise.
    """

    deviation: float
    runs: int
    configs: int
    degrees: int
    gap: float

    def interval(self, runs: int) -> float:
        r"""Return half of the 95 % confidence interval of a mean over ``runs`` seeds.

        .. math:: t_{0.975, \nu} \, s / \sqrt n

        with Student's t of as many degrees of freedom as the deviation has.
        """
        from scipy.stats import t  # type: ignore[import-untyped]

        return float(t.ppf(0.975, self.degrees)) * self.deviation / runs**0.5


def noise_of(results: Sequence[RunResult], metric: str = COCO_METRICS[0]) -> Noise | None:
    r"""Compute the spread of a metric over seeds.

    .. math:: s^2 = \frac{\sum_c \sum_i (x_{ci} - \bar x_c)^2}{\sum_c (n_c - 1)}, \qquad
        gap = 2 s \sqrt{2 / \min_c n_c}

    with :math:`x_{ci}` the metric of seed i of config c, and :math:`n_c` the number of its seeds.

    Args:
        results: Results of all configs.
        metric: Metric of the test.

    Returns:
        The noise; None if no config has two seeds.
    """
    values = [
        [run.metrics[metric] for run in results_of(results, name)]
        for name in dict.fromkeys(run.config for run in results)
    ]
    several = [each for each in values if len(each) > 1]
    if not several:
        return None
    squares = sum(statistics.variance(each) * (len(each) - 1) for each in several)
    degrees = sum(len(each) - 1 for each in several)
    deviation = (squares / degrees) ** 0.5
    least = min(map(len, values))
    gap = 2 * deviation * (2 / least) ** 0.5
    return Noise(deviation, sum(map(len, several)), len(several), degrees, gap)


def noise_line(results: Sequence[RunResult], metric: str = COCO_METRICS[0]) -> str:
    """Say in one sentence which gaps between two configs are noise."""
    name, noise = metric.removeprefix('bbox_'), noise_of(results, metric)
    if noise is None:
        return f'Each config has one seed: which gaps of {name} are noise, this table cannot tell.'
    return (
        f'Noise: seeds of one config spread with a standard deviation of {noise.deviation:.3f} in '
        f'{name} ({noise.runs} runs of {noise.configs} '
        f'{"config" if noise.configs == 1 else "configs"}). A gap between two rows below '
        f'{noise.gap:.3f}, two standard errors, is noise.'
    )


def comparison_table(
    names: Sequence[str], results: Sequence[RunResult], metrics: Sequence[str] = COCO_METRICS
) -> str:
    """Format a Markdown table, one line per config.

    A line has the means of the metrics, the first metric per seed, its mean gap to the first
    config over the seeds that both have, and the median time per iteration. From three seeds on,
    there is a 95 % confidence interval of the mean of the first metric, too.

    Args:
        names: Names of the configs; the first is the reference.
        results: At least one result per config.
        metrics: Metrics to show; those of COCO bring the precision per class with them.
    """
    shown, first = list(metrics), metrics[0]
    if tuple(shown) == COCO_METRICS:
        shown += sorted(k for k in results[0].metrics if k.endswith('_precision'))
    title = [name.removeprefix('bbox_').removesuffix('_precision') for name in shown]
    most = max(len(results_of(results, name)) for name in names)
    noise = noise_of(results, first) if most >= _FOR_INTERVAL else None
    ends = [f'{title[0]} by seed', f'{title[0]} to first', 's / iteration']
    if noise:
        ends.insert(1, f'{title[0]}, 95 % interval')
    rows = [['config', *title, *ends], ['---'] + ['---:'] * (len(title) + len(ends))]
    reference = {run.seed: run.metrics[first] for run in results_of(results, names[0])}
    for name in names:
        runs = results_of(results, name)
        by_seed = [run.metrics[first] for run in runs]
        gap = statistics.mean(run.metrics[first] - reference[run.seed] for run in runs)
        interval = []
        if noise:
            mean, half = statistics.mean(by_seed), noise.interval(len(runs))
            interval = [f'{mean - half:.3f} to {mean + half:.3f}']
        rows.append(
            [
                f'`{name}`',
                *(f'{statistics.mean(run.metrics[key] for run in runs):.3f}' for key in shown),
                ', '.join(f'{value:.3f}' for value in by_seed),
                *interval,
                f'{gap:+.3f}',
                f'{statistics.median(run.seconds_per_iter for run in runs):.2f}',
            ]
        )
    return '\n'.join('| ' + ' | '.join(row) + ' |' for row in rows)
