"""Draw which ground truth each prior is assigned to, by any assigner of ours or of mmdet.

    python tools/analysis/show_assignment.py CONFIG --out DIR
    python tools/analysis/show_assignment.py CONFIG --checkpoint x.pth --images 0 7 a.jpg --out DIR
    python tools/analysis/show_assignment.py CONFIG --versus OTHER_CONFIG --out DIR

A figure per image has a panel per pyramid level. Dots are priors in the colour of their box (the
centres of proposals or predicted boxes, where these are assigned), grey crosses are ignored priors,
a dashed box has no prior. With --versus, the assignment of the other config is drawn below.

Images are those of the config's training data (--split), by number, file name or path, as its
network sees them, without random changes. Assigners that use predictions show the assignment of an
untrained network, unless there is a checkpoint. Rules that change during training (TOOD) show that
of the last epoch, unless there is an --epoch. Writes counts.json, and a PNG per image with the name
of the image, preceded by its folders where several images have one name.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from mmdet.utils import register_all_modules

from mmdet_ext.detection.inspection.show import show_images
from mmdet_ext.detection.inspection.side import Side, Sight, load_side
from mmdet_ext.engine.configs import read_config
from mmdet_ext.engine.errors import InputError


def main(argv: list[str] | None = None) -> int:
    """Draw the figures; return 0, or 2 for wrong input."""
    args = _parse(argv)
    register_all_modules()
    before = logging.root.manager.disable
    logging.disable(logging.INFO)  # a line per initialised weight
    try:
        _check(args)
        sides = _load(args)
        for path, sights in show_images(sides, args.images, args.count, args.out, args.seed):
            _report(path, sides, sights)
    except InputError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    finally:
        logging.disable(before)
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('config', type=Path)
    add('--checkpoint', type=Path, help='weights of the config')
    add('--versus', type=Path, metavar='CONFIG', help='config to draw below')
    add('--versus-checkpoint', type=Path, help='its weights')
    which = 'numbers, names or paths; default: the first --count'
    add('--images', nargs='+', default=[], metavar='WHICH', help=which)
    add('--count', type=int, default=4)
    add('--split', choices=('train', 'val', 'test'), default='train')
    add('--epoch', type=int, help='from 1; default: the last of the config')
    add('--out', type=Path, required=True, help='folder')
    add('--seed', type=int, default=0, help='of untrained weights and of samplers')
    options = 'to set in the config, and in that of --versus'
    add('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help=options)
    return parser.parse_args(argv)


def _check(args: argparse.Namespace) -> None:
    for name in ('count', 'epoch'):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise InputError(f'--{name} must be 1 or more, got {value}')
    if args.versus_checkpoint and not args.versus:
        raise InputError('--versus-checkpoint is of the config of --versus, which is not given')
    if args.out.exists() and not args.out.is_dir():
        raise InputError(f'--out {args.out} is a file; give a folder')


def _load(args: argparse.Namespace) -> list[Side]:
    paths = [path for path in (args.config, args.versus) if path]
    configs = [read_config(path, args.cfg_options) for path in paths]
    names = [path.stem for path in paths]
    if len(set(names)) < len(names):
        names[1] += ' (--versus)'
    more = dict(split=args.split, epoch=args.epoch, seed=args.seed)
    sides = []
    checkpoints = (args.checkpoint, args.versus_checkpoint)
    for name, config, checkpoint in zip(names, configs, checkpoints, strict=False):
        side = load_side(name, config, checkpoint=checkpoint, **more)
        if side.warning:
            print(f'warning: {side.warning}', file=sys.stderr)
        sides.append(side)
    return sides


def _report(path: Path, sides: Sequence[Side], sights: Sequence[Sight]) -> None:
    print(path)
    for row in [row.counts() for sight in sights for row in sight.rows]:
        title = row['title'].replace('\n', ', ')
        print(
            f'  {title}: {row["positive"]:,} of {row["priors"]:,} priors positive, '
            f'{row["ignored"]:,} ignored, {row["boxes_without_prior"]} of {row["boxes"]} boxes '
            'without'
        )
    seen = [
        f'{sight.image.shape[1]} x {sight.image.shape[0]} px and {len(sight.rows[0].boxes)} boxes'
        for sight in sights
    ]
    if len(set(seen)) > 1:
        parts = [f'{side.name} {one}' for side, one in zip(sides, seen, strict=True)]
        print('  each as its own config prepares the image: ' + ', '.join(parts))


if __name__ == '__main__':
    sys.exit(main())
