"""Convert a Pascal VOC folder to COCO json; print numbers of kept, changed and dropped boxes."""

from __future__ import annotations

import argparse
import sys
from typing import get_args

from mmdet_ext.data.coco.voc import Difficult, convert_voc
from mmdet_ext.data.coco.voc_folder import VocError


def main(argv: list[str] | None = None) -> int:
    """Run the tool; return the exit code, 2 for bad input."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'root',
        metavar='VOC_ROOT',
        help='folder with Annotations/, JPEGImages/ and, if any, ImageSets/Main/',
    )
    parser.add_argument(
        '--out', required=True, metavar='DIR', help='folder that gets instances_<split>.json'
    )
    parser.add_argument(
        '--splits',
        nargs='+',
        metavar='NAME',
        help='lists in ImageSets/Main, in any case (default: all that hold plain image ids)',
    )
    parser.add_argument(
        '--classes',
        nargs='+',
        metavar='NAME',
        help='classes to keep, in the order of their ids (default: all, sorted)',
    )
    parser.add_argument(
        '--difficult',
        choices=get_args(Difficult),
        default='keep',
        help='keep difficult boxes, mark them iscrowd=1, or drop them (default: %(default)s)',
    )
    parser.add_argument(
        '--inclusive',
        action='store_true',
        help='corners are pixel numbers from 1, both included, as in the VOC '
        'devkit (default: edges in pixels from 0, as labelImg writes them)',
    )
    parser.add_argument(
        '--seed',
        type=int,
        default=0,
        help='seed of the random 80/20 split of a folder without lists, or with a single one '
        'that names no split',
    )
    args = parser.parse_args(argv)
    try:
        reports = convert_voc(
            args.root,
            args.out,
            args.splits,
            args.classes,
            difficult=args.difficult,
            inclusive=args.inclusive,
            seed=args.seed,
        )
    except (VocError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    print('\n\n'.join(report.table() for report in reports))
    return 0


if __name__ == '__main__':
    sys.exit(main())
