"""Train and test several configs with several seeds, and set their figures side by side.

    python tools/compare_configs.py CONFIG [CONFIG ...] --seeds 0 1 --out docs/results/NAME

The first config is the reference. Each run goes through ``mim train mmdet`` and ``mim test mmdet``.
A run that is finished is not run again, so that the command can be repeated after a break. Writes
NAME.json (all figures), NAME.md (the table) and NAME.png (loss and validation curves).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmdet_ext.evaluation.run_figures import COLOURS, GREY, new_figure, save_figure
from mmdet_ext.evaluation.run_report import find_scalars, read_scalars
from mmdet_ext.utils.files import write_json, write_text
from mmdet_ext.utils.mim import MimError, run_mim


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
        val: (iteration, mAP) of each validation.
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
    results = []
    for seed in args.seeds:
        for config in args.configs:
            folder = args.work_dir / config.stem / f'seed{seed}'
            try:
                results.append(run_once(config, seed, folder, args.cfg_options))
            except MimError as error:
                print(f'error: {error}', file=sys.stderr)
                return 1
    names = [config.stem for config in args.configs]
    write_json(args.out.with_suffix('.json'), {'runs': [asdict(result) for result in results]})
    table = markdown_table(names, results)
    write_text(args.out.with_suffix('.md'), _page(args, table))
    draw_curves(names, results, args.out.with_suffix('.png'))
    print(table)
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('configs', type=Path, nargs='+', metavar='CONFIG')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1], help='default: 0 1')
    parser.add_argument('--out', type=Path, required=True, help='files to write, without suffix')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/compare'))
    parser.add_argument('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE',
                        help='handed on to mim train and mim test')  # fmt: skip
    return parser.parse_args(argv)


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
    kept = {
        key.removeprefix('coco/'): float(value)
        for key, value in metrics.items()
        if key.startswith('coco/')
    }
    val = [(iteration, value) for iteration, _, value in curve.val]
    return RunResult(name, seed, kept, seconds, curve.iterations, curve.losses['loss'], val)


def markdown_table(names: Sequence[str], results: Sequence[RunResult]) -> str:
    """Mean test figures of each config, each seed's mAP, and the gap to the first config."""
    classes = sorted(k for k in results[0].metrics if k.endswith('_precision'))
    shown = ['bbox_mAP', 'bbox_mAP_50', 'bbox_mAP_75', *classes]
    title = [name.removeprefix('bbox_').removesuffix('_precision') for name in shown]
    rows = [
        ['config', *title, 'mAP by seed', 'mAP to first'],
        ['---'] + ['---:'] * (len(title) + 2),
    ]
    reference = _of(results, names[0])
    for name in names:
        runs = _of(results, name)
        by_seed = [run.metrics['bbox_mAP'] for run in runs]
        gap = statistics.mean(by_seed) - statistics.mean(r.metrics['bbox_mAP'] for r in reference)
        rows.append([
            f'`{name}`',
            *(f'{statistics.mean(run.metrics[key] for run in runs):.3f}' for key in shown),
            ', '.join(f'{value:.3f}' for value in by_seed),
            f'{gap:+.3f}',
        ])  # fmt: skip
    return '\n'.join('| ' + ' | '.join(row) + ' |' for row in rows)


def _page(args: argparse.Namespace, table: str) -> str:
    options = f' --cfg-options {" ".join(args.cfg_options)}' if args.cfg_options else ''
    command = (
        f'python tools/compare_configs.py {" ".join(map(str, args.configs))} '
        f'--seeds {" ".join(map(str, args.seeds))} --out {args.out}{options}'
    )
    return (
        f'# {args.out.stem}\n\nTest figures, means over seeds {args.seeds}. Made by\n\n'
        f'    {command}\n\n{table}\n\n![loss and validation curves]({args.out.stem}.png)\n'
    )


def draw_curves(names: Sequence[str], results: Sequence[RunResult], path: Path) -> None:
    """Loss and validation mAP by iteration, a colour a config and a line a seed."""
    figure = new_figure(12, 4.5)
    axes = figure.subplots(1, 2)
    for index, name in enumerate(names):
        for run in _of(results, name):
            style: dict[str, Any] = dict(
                color=COLOURS[(index - 1) % len(COLOURS)] if index else GREY,
                linestyle='--' if index == 0 else '-',
                alpha=0.8,
                label=name if run is _of(results, name)[0] else None,
            )
            axes[0].plot(run.iterations, run.loss, **style)
            axes[1].plot(*zip(*run.val, strict=True), marker='.', **style)
    axes[0].set(title='training loss', xlabel='iteration', ylabel='loss', ylim=(0, None))
    axes[1].set(title='validation mAP, a line a seed', xlabel='iteration', ylim=(0, None))
    axes[1].legend(loc='lower right')
    for axis in axes:
        axis.grid(alpha=0.3)
    save_figure(figure, path)


def _of(results: Sequence[RunResult], name: str) -> list[RunResult]:
    return [result for result in results if result.config == name]


if __name__ == '__main__':
    sys.exit(main())
