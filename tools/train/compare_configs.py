"""Train and test several configs with several seeds, and compare their results.

    python tools/train/compare_configs.py CONFIG [CONFIG ...] --seeds 0 1 --out docs/results/NAME
    python tools/train/compare_configs.py CONFIG [CONFIG ...] --seeds 0 --best 3 --out ...
    python tools/train/compare_configs.py CONFIG [CONFIG ...] --metrics auc tar@far=1e-02 --out ...
    python tools/train/compare_configs.py CONFIG [CONFIG ...] --metrics mIoU IoU_triangle --out ...

The first config is the reference. A config named twice counts once, so that a reference may be
followed by a pattern. With --best the reference and the K configs that are best by the first of
--metrics run with --best-seeds too, which shows a lead by luck with the first seeds. Each run uses
``mim train mmdet`` and ``mim test mmdet``, or those of mmseg or mmpose where it is the config's
``default_scope``; --jobs runs at a time share the cores. A finished run is
not repeated, so that the command can go on after an interruption; --known takes finished runs from
the .json of another comparison, made with the same configs and options. Below the table stands
which gaps are noise, by the spread of the seeds. Writes NAME.json (all results),
NAME.md (the table) and NAME.png (loss and validation).
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from dataclasses import asdict
from pathlib import Path

from mmdet_ext.analysis.comparison import (
    COCO_METRICS,
    best_names,
    check_metrics,
    comparison_table,
    noise_line,
)
from mmdet_ext.engine.configs import read_config
from mmdet_ext.plots.comparison import draw_comparison
from mmdet_ext.studies.config_runs import run_all, take_over
from mmdet_ext.utils.files import write_json, write_text
from mmdet_ext.utils.mim import MimError


def main(argv: list[str] | None = None) -> int:
    """Run the comparison; return 0, 1 if a run failed, 2 for bad input."""
    args = _parse(argv)
    configs = list(dict.fromkeys(args.configs))
    names = [config.stem for config in configs]
    problem = _problem(configs, names)
    if problem:
        print(f'error: {problem}', file=sys.stderr)
        return 2
    try:
        for table in args.known:
            added = take_over(table, args.work_dir, args.cfg_options)
            print(f'{table}: {added} finished runs taken over')
    except ValueError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    if args.jobs > 1:
        os.environ['OMP_NUM_THREADS'] = str(max(1, (os.cpu_count() or 1) // args.jobs))
    runs = (args.work_dir, args.cfg_options, args.jobs)
    try:
        results = run_all(configs, args.seeds, *runs)
        check_metrics(results, args.metrics)
        if args.best:
            chosen = {names[0], *best_names(results, names[1:], args.best, args.metrics[0])}
            again = [config for config in configs if config.stem in chosen]
            results += run_all(again, args.best_seeds, *runs)
        table = comparison_table(names, results, args.metrics)
        noise = noise_line(results, args.metrics[0])
    except MimError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    write_json(args.out.with_suffix('.json'), {'runs': [asdict(result) for result in results]})
    write_text(args.out.with_suffix('.md'), _page(args, f'{table}\n\n{noise}'))
    draw_comparison(names, results, args.out.with_suffix('.png'), args.metrics[0])
    print(f'{table}\n\n{noise}')
    return 0


def _problem(configs: list[Path], names: list[str]) -> str:
    absent = [str(config) for config in configs if not config.is_file()]
    if absent:
        return f'no such config: {", ".join(absent)}'
    try:
        for config in configs:
            read_config(config)
    except ValueError as error:
        return str(error)
    twice = sorted({name for name in names if names.count(name) > 1})
    return f'two configs are called {twice[0]}; results go by the file name' if twice else ''


def _page(args: argparse.Namespace, table: str) -> str:
    options = f' --jobs {args.jobs}' if args.jobs > 1 else ''
    seeds = ' '.join(map(str, args.seeds))
    also = ''
    if args.best:
        again = ' '.join(map(str, args.best_seeds))
        options += f' --best {args.best} --best-seeds {again}'
        also = f'; the first row and the best {args.best} also have {again}'
    if tuple(args.metrics) != COCO_METRICS:
        options += f' --metrics {shlex.join(args.metrics)}'
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


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('configs', type=Path, nargs='+', metavar='CONFIG')
    add('--seeds', type=int, nargs='+', default=[0, 1], help='default: 0 1')
    add('--best', type=int, default=0, metavar='K', help='so many of the best get --best-seeds too')
    add(
        '--metrics',
        nargs='+',
        default=list(COCO_METRICS),
        metavar='NAME',
        help='test metrics, more is better, the first ranks (default: COCO, with each class)',
    )
    add('--best-seeds', type=int, nargs='+', default=[1, 2], help='default: 1 2')
    add('--jobs', type=int, default=1, help='runs side by side, default 1')
    add('--out', type=Path, required=True, help='files to write, without suffix')
    add('--work-dir', type=Path, default=Path('work_dirs/compare'))
    add('--known', type=Path, nargs='+', default=[], metavar='JSON', help='finished comparisons')
    add(
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


if __name__ == '__main__':
    sys.exit(main())
