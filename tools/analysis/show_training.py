"""Draw what configs train on: images behind their pipelines, and their learning rates.

    python tools/analysis/show_training.py CONFIG --out DIR
    python tools/analysis/show_training.py CONFIG OTHER_CONFIG --count 8 --out DIR

For each config, NAME.png has training images as the network gets them, with all random changes:
boxes in the colours of the classes, ignored ones dashed. learning_rates.png has a line per config.
A scheduler that waits for figures of validation (ReduceOnPlateau) is left out, and named. The same
seed gives the same images.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from mmdet.utils import register_all_modules

from mmdet_ext.detection.inspection.training import TrainingSet, learning_rates
from mmdet_ext.engine.configs import read_config
from mmdet_ext.engine.errors import InputError, explained
from mmdet_ext.plots.detection.training import draw_learning_rates, draw_samples


def main(argv: list[str] | None = None) -> int:
    """Draw the figures; return 0, or 2 for wrong input."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('configs', nargs='+', type=Path, metavar='CONFIG')
    add('--count', type=int, default=8, help='images of each config')
    add('--out', type=Path, required=True, help='folder')
    add('--seed', type=int, default=0)
    options = 'to set in all configs'
    add('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help=options)
    args = parser.parse_args(argv)
    register_all_modules()
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        _draw(args)
    except InputError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    finally:
        logging.disable(before)
    return 0


def _draw(args: argparse.Namespace) -> None:
    if args.count < 1:
        raise InputError(f'--count must be 1 or more, got {args.count}')
    if args.out.exists() and not args.out.is_dir():
        raise InputError(f'--out {args.out} is a file; give a folder')
    names = [path.stem for path in args.configs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f'{twice[0]} is the name of several configs, and of the file of each')
    rates = {}
    for name, path in zip(names, args.configs, strict=True):
        config = read_config(path, args.cfg_options)
        with explained(f'the training data of {path}'):
            data = TrainingSet(config)
            count = min(args.count, len(data))
            samples = [data.sample(number, args.seed + number) for number in range(count)]
        with explained(f'the schedule of {path}'):
            schedule = learning_rates(config, len(data))
        args.out.mkdir(parents=True, exist_ok=True)
        draw_samples(samples, data.classes, args.out / f'{name}.png', name)
        print(args.out / f'{name}.png')
        for scheduler in schedule.waits:
            print(f'{name}: {scheduler} follows figures of validation, and is left out')
        rates[name] = schedule.rates, schedule.epoch_length
    draw_learning_rates(rates, args.out / 'learning_rates.png')
    print(args.out / 'learning_rates.png')


if __name__ == '__main__':
    sys.exit(main())
