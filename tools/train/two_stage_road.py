"""Train the two-stage detectors from R-CNN to Light-Head R-CNN, and measure accuracy and time.

    python tools/train/two_stage_road.py
    python tools/train/two_stage_road.py --epochs 4 --stations faster_rcnn rfcn light_head_rcnn

Makes the shapes and a file of proposals where they are absent, trains and tests each detector of
configs/detection/two_stage, and times its network on single images. A detector that is done is not
trained again, so that the command can go on after an interruption. The proposals of R-CNN, SPPNet
and Fast R-CNN are sliding windows (--proposals grid), or selective search (fast, quality, single)
where OpenCV has its contrib modules. Prints a table, and writes OUT.md, OUT.json and OUT.png.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mmdet_ext.data.reports import LayoutError
from mmdet_ext.data.synthetic.shape_scenes import ShapesError
from mmdet_ext.plots.road import draw_road
from mmdet_ext.studies.two_stage_road import (
    METHODS,
    SEARCHED,
    STATIONS,
    Road,
    road_json,
    road_table,
    travel,
)
from mmdet_ext.utils.files import write_json, write_text
from mmdet_ext.utils.mim import MimError

CONFIGS = Path(__file__).resolve().parents[2] / 'configs/detection/two_stage'


def main(argv: list[str] | None = None) -> int:
    """Run the tool; return 0, 1 if a run failed, 2 for bad input."""
    args = _parse(argv)
    problem = _problem(args)
    if problem:
        print(f'error: {problem}', file=sys.stderr)
        return 2
    folder = args.work_dir / f'{args.proposals}_{args.epochs}e'
    road = Road(args.data, CONFIGS, folder, args.proposals, args.epochs, args.seed, args.images)
    try:
        stops = travel(road, args.stations, args.train, args.val)
    except MimError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    except (ShapesError, LayoutError, ModuleNotFoundError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    table = road_table(stops)
    note = f'{args.epochs} epochs, seed {args.seed}; proposals from files: {args.proposals}'
    write_json(args.out.with_suffix('.json'), road_json(road, stops))
    write_text(args.out.with_suffix('.md'), _page(args, table))
    names, precision = [stop.name for stop in stops], [stop.precision for stop in stops]
    seconds = [stop.seconds for stop in stops]
    draw_road(names, seconds, precision, args.out.with_suffix('.png'), note)
    print(table)
    return 0


def _problem(args: argparse.Namespace) -> str:
    for name in ('epochs', 'images', 'train', 'val'):
        if getattr(args, name) < 1:
            return f'--{name} must be at least 1, got {getattr(args, name)}'
    if args.seed < 0:
        return f'--seed must be at least 0, got {args.seed}'
    unknown = [name for name in args.stations if name not in STATIONS]
    if unknown:
        return f'--stations has no {", ".join(unknown)}; there are {", ".join(STATIONS)}'
    if args.proposals not in METHODS:
        return f'--proposals must be one of {", ".join(METHODS)}, got {args.proposals}'
    return ''


def _page(args: argparse.Namespace, table: str) -> str:
    searched = ', '.join(STATIONS[name] for name in SEARCHED)
    return (
        f'# {args.out.stem}\n\nMade by `python tools/train/two_stage_road.py --epochs '
        f'{args.epochs} --seed {args.seed} --proposals {args.proposals} --stations '
        f'{" ".join(args.stations)}`. Seconds are medians over {args.images} single images on the '
        f'machine of the run; the search is that of {searched} ({args.proposals}), and the other '
        f'networks propose by themselves.\n\n{table}\n\n![mAP against time]({args.out.stem}.png)\n'
    )


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('--data', type=Path, default=Path('data/shapes'), help='default: %(default)s')
    add('--stations', nargs='+', default=list(STATIONS), metavar='NAME', help='default: all')
    add('--epochs', type=int, default=12, help='default: %(default)s')
    add('--seed', type=int, default=0, help='default: %(default)s')
    add('--proposals', default='grid', help=f'one of {", ".join(METHODS)} (default: %(default)s)')
    add('--images', type=int, default=10, help='images that are timed (default: %(default)s)')
    add('--train', type=int, default=240, help='training images to make (default: %(default)s)')
    add('--val', type=int, default=60, help='validation images to make (default: %(default)s)')
    add('--work-dir', type=Path, default=Path('work_dirs/two_stage_road'))
    add('--out', type=Path, default=Path('work_dirs/two_stage_road/road'), help='without suffix')
    return parser.parse_args(argv)


if __name__ == '__main__':
    sys.exit(main())
