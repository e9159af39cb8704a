"""Train and test several configs with several seeds, and set their figures side by side.

    python tools/train/compare_configs.py CONFIG [CONFIG ...] --seeds 0 1 --out docs/results/NAME
    python tools/train/compare_configs.py CONFIG [CONFIG ...] --seeds 0 --best 3 --out docs/results/NAME
    python tools/train/compare_configs.py CONFIG [CONFIG ...] --metrics auc tar@far=1e-02 --out ...

The first config is the reference; a config named twice counts once, so that a reference may be
followed by a pattern. With --best the reference and the so many configs that are best by the first
of --metrics run with --best-seeds too: what leads by luck with the first seeds shows there. Each
run goes through ``mim train mmdet`` and ``mim test mmdet``, --jobs of them side by side, the cores
shared out. A run that is finished is not run again, so that the command can be repeated after a
break. Writes NAME.json (all figures), NAME.md (the table) and NAME.png (loss and validation).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmdet_ext.analysis.run_report import find_scalars, read_scalars
from mmdet_ext.plots.style import COLOURS, GREY, new_figure, save_figure
from mmdet_ext.utils.files import write_json, write_text
from mmdet_ext.utils.mim import MimError, run_mim

#: What is shown of a detector; each class's precision goes with them.
COCO_METRICS = ('bbox_mAP', 'bbox_mAP_50', 'bbox_mAP_75')


@dataclass(frozen=True)
class RunResult:
    """One config trained with one seed and tested.

    Attributes:
        config: name of the config file, without suffix.
        seed: its seed.
        metrics: the test's metrics by name.
        seconds_per_iter: median over the logged training iterations.
        iterations: of each logged loss.
        loss: total loss at those.
        val: (iteration, first validation metric) of each validation.
    """

    config: str
    seed: int
    metrics: dict[str, float]
    seconds_per_iter: float
    iterations: list[int]
    loss: list[float]
    val: list[tuple[int, float]]


def main(argv: list[str] | None = None) -> int:
    """Run the comparison; returns 0, 1 if a run failed, 2 for bad input."""
    args = _parse(argv)
    absent = [str(config) for config in args.configs if not config.is_file()]
    if absent:
        print(f'error: no such config: {", ".join(absent)}', file=sys.stderr)
        return 2
    configs = list(dict.fromkeys(args.configs))
    names = [config.stem for config in configs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        message = f'two configs are called {twice[0]}; results go by the file name'
        print(f'error: {message}', file=sys.stderr)
        return 2
    if args.jobs > 1:
        os.environ['OMP_NUM_THREADS'] = str(max(1, (os.cpu_count() or 1) // args.jobs))
    try:
        results = run_all(configs, args.seeds, args)
        check_metrics(results, args.metrics)
        if args.best:
            chosen = {names[0], *best_names(results, names[1:], args.best, args.metrics[0])}
            again = [config for config in configs if config.stem in chosen]
            results += run_all(again, args.best_seeds, args)
        table = markdown_table(names, results, args.metrics)
    except MimError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    write_json(args.out.with_suffix('.json'), {'runs': [asdict(result) for result in results]})
    write_text(args.out.with_suffix('.md'), _page(args, table))
    draw_curves(names, results, args.out.with_suffix('.png'), args.metrics[0])
    print(table)
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('configs', type=Path, nargs='+', metavar='CONFIG')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1], help='default: 0 1')
    parser.add_argument(
        '--best', type=int, default=0, metavar='K', help='so many of the best get --best-seeds too'
    )
    parser.add_argument(
        '--metrics',
        nargs='+',
        default=list(COCO_METRICS),
        metavar='NAME',
        help='test metrics, more is better, the first ranks (default: those of '
        'COCO, with each class)',
    )
    parser.add_argument('--best-seeds', type=int, nargs='+', default=[1, 2], help='default: 1 2')
    parser.add_argument('--jobs', type=int, default=1, help='runs side by side, default 1')
    parser.add_argument('--out', type=Path, required=True, help='files to write, without suffix')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/compare'))
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='handed on to mim train and mim test',
    )
    args = parser.parse_args(argv)
    if args.best and set(args.seeds) & set(args.best_seeds):
        parser.error(f'--best-seeds {args.best_seeds} must differ from --seeds {args.seeds}')
    return args


def run_all(
    configs: Sequence[Path], seeds: Sequence[int], args: argparse.Namespace
) -> list[RunResult]:
    """Train and test each config with each seed, --jobs at a time.

    Raises:
        MimError: if a run fails; what has not begun then does not begin.
    """
    with ThreadPoolExecutor(args.jobs) as pool:
        runs = [
            pool.submit(
                run_once,
                config,
                seed,
                args.work_dir / config.stem / f'seed{seed}',
                args.cfg_options,
            )
            for seed in seeds
            for config in configs
        ]
        try:
            return [run.result() for run in runs]
        except MimError:
            pool.shutdown(cancel_futures=True)
            raise


def check_metrics(results: Sequence[RunResult], metrics: Sequence[str]) -> None:
    """Raise MimError, naming what there is, unless all runs have these metrics."""
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
    """The so many of the names whose runs have the highest mean of a metric."""

    def score(name: str) -> float:
        return statistics.mean(run.metrics[metric] for run in _of(results, name))

    return sorted(names, key=score, reverse=True)[:count]


def run_once(config: Path, seed: int, folder: Path, options: Sequence[str]) -> RunResult:
    """Train and test one config with one seed in ``folder``, or read what was done there.

    Raises:
        MimError: if training or testing fails, or what was done there had other options.
    """
    done = folder / 'result.json'
    if done.is_file():
        print(f'{config.stem}, seed {seed}: done before, in {folder}')
        content = json.loads(done.read_text(encoding='utf-8'))
        if content.pop('options') != list(options):
            raise MimError(f'{done} was made with other --cfg-options; give another --work-dir')
        return RunResult(**{**content, 'val': [tuple(point) for point in content['val']]})
    common = ['--cfg-options', f'randomness.seed={seed}', *options]
    run_mim('train', config, '--work-dir', folder, *common)
    checkpoint = Path((folder / 'last_checkpoint').read_text(encoding='utf-8').strip())
    run_mim('test', config, '--checkpoint', checkpoint, '--work-dir', folder / 'test', *common)
    result = read_result(config.stem, seed, folder)
    write_json(done, {**asdict(result), 'options': list(options)})
    return result


def read_result(name: str, seed: int, folder: Path) -> RunResult:
    """Collect the figures that mim train and mim test left in ``folder``."""
    scalars = find_scalars(folder)
    curve = read_scalars(scalars)
    records = [json.loads(line) for line in scalars.read_text(encoding='utf-8').splitlines()]
    seconds = statistics.median(r['time'] for r in records if 'loss' in r)
    newest = max((folder / 'test').glob('*/*.json'), key=lambda path: path.stat().st_mtime)
    metrics = json.loads(newest.read_text(encoding='utf-8').splitlines()[-1])
    # 'coco/bbox_mAP' is 'bbox_mAP' here; times have no prefix.
    kept = {
        key.partition('/')[2]: float(value)
        for key, value in metrics.items()
        if '/' in key and isinstance(value, (int, float))
    }
    val = [(iteration, value) for iteration, _, value in curve.val]
    return RunResult(name, seed, kept, seconds, curve.iterations, curve.losses['loss'], val)


def markdown_table(
    names: Sequence[str], results: Sequence[RunResult], metrics: Sequence[str] = COCO_METRICS
) -> str:
    """Mean test figures of each config, the first by seed, its gap to the first row, and the time.

    The gap is over the seeds that both have.
    """
    shown, first = list(metrics), metrics[0]
    if tuple(shown) == COCO_METRICS:
        shown += sorted(k for k in results[0].metrics if k.endswith('_precision'))
    title = [name.removeprefix('bbox_').removesuffix('_precision') for name in shown]
    rows = [
        ['config', *title, f'{title[0]} by seed', f'{title[0]} to first', 's / iteration'],
        ['---'] + ['---:'] * (len(title) + 3),
    ]
    reference = {run.seed: run.metrics[first] for run in _of(results, names[0])}
    for name in names:
        runs = _of(results, name)
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


def _page(args: argparse.Namespace, table: str) -> str:
    options = f' --jobs {args.jobs}' if args.jobs > 1 else ''
    seeds = ' '.join(map(str, args.seeds))
    also = ''
    if args.best:
        again = ' '.join(map(str, args.best_seeds))
        options += f' --best {args.best} --best-seeds {again}'
        also = f'; the first row and the best {args.best} also have {again}'
    if tuple(args.metrics) != COCO_METRICS:
        options += f' --metrics {" ".join(args.metrics)}'
    if args.cfg_options:
        options += f' --cfg-options {" ".join(args.cfg_options)}'
    command = (
        f'python tools/train/compare_configs.py {" ".join(map(str, args.configs))} '
        f'--seeds {seeds} --out {args.out}{options}'
    )
    return (
        f"# {args.out.stem}\n\nTest figures, means over a row's seeds: {seeds}{also}. Made by\n\n"
        f'    {command}\n\n{table}\n\n![loss and validation curves]({args.out.stem}.png)\n'
    )


def draw_curves(
    names: Sequence[str],
    results: Sequence[RunResult],
    path: Path,
    metric: str = COCO_METRICS[0],
) -> None:
    """Loss and validation by iteration, and the test's metric, a colour a config, a line a seed."""
    title = metric.removeprefix('bbox_')
    figure = new_figure(16, max(4.5, 0.3 * len(names)))
    axes = figure.subplots(1, 3)
    for index, name in enumerate(names):
        colour = COLOURS[(index - 1) % len(COLOURS)] if index else GREY
        runs = _of(results, name)
        for run in runs:
            style: dict[str, Any] = dict(
                color=colour, linestyle='--' if index == 0 else '-', alpha=0.8
            )
            axes[0].plot(run.iterations, run.loss, **style)
            if run.val:
                axes[1].plot(*zip(*run.val, strict=True), marker='.', **style)
        scores = [run.metrics[metric] for run in runs]
        axes[2].plot(scores, [index] * len(runs), 'o', color=colour, alpha=0.5)
        axes[2].plot(statistics.mean(scores), index, '|', color=colour, markersize=16)
        if index == 0:
            axes[2].axvline(statistics.mean(scores), color=GREY, linestyle='--', linewidth=1)
    axes[0].set(title='training loss', xlabel='iteration', ylim=(0, None))
    axes[1].set(title=f'validation {title}, a line a seed', xlabel='iteration', ylim=(0, None))
    axes[2].set(title=f'test {title}, a dot a seed, the bar their mean')
    axes[2].set_yticks(range(len(names)), names)
    axes[2].invert_yaxis()
    for index, label in enumerate(axes[2].get_yticklabels()):
        label.set_color(COLOURS[(index - 1) % len(COLOURS)] if index else GREY)
        label.set_fontsize(8)
    for axis in axes:
        axis.grid(alpha=0.3)
    save_figure(figure, path)


def _of(results: Sequence[RunResult], name: str) -> list[RunResult]:
    return [result for result in results if result.config == name]


if __name__ == '__main__':
    sys.exit(main())
