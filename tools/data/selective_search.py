"""Write the proposals of a data set to a file, for detectors without a proposal network.

    python tools/data/selective_search.py data/shapes/annotations/instances_train.json \
        --images data/shapes/images/train --out data/shapes/proposals/train.pkl

The methods fast, quality and single are selective search of OpenCV's contrib modules
(opencv-contrib-python-headless, in an environment of its own: it takes the place of opencv-python).
The method grid is sliding windows, which need nothing. The data set of the config names the file as
proposal_file; configs/detection/two_stage/ has examples.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import get_args

from mmdet_ext.data.proposals import (
    SEARCH_WIDTH,
    Search,
    find_proposals,
    grid_windows,
    selective_search,
    write_proposals,
)
from mmdet_ext.data.reports import LayoutError


def main(argv: list[str] | None = None) -> int:
    """Run the tool; return 0, or 2 for bad input."""
    args = _parse(argv)
    if args.method == 'grid':
        propose = partial(grid_windows, least=args.least)
    else:
        propose = partial(selective_search, search=args.method, width=args.width)
    try:
        if args.out.suffix != '.pkl':
            raise LayoutError(f'--out must end in .pkl, got {args.out}')
        found = find_proposals(args.annotations, args.images, propose, args.workers)
        write_proposals(found.boxes, args.out)
    except (LayoutError, OSError, ImportError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    print(f'{found}\n{args.out}')
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('annotations', type=Path, metavar='ANN', help='COCO json file')
    parser.add_argument(
        '--images', required=True, type=Path, metavar='DIR', help='folder of the images'
    )
    parser.add_argument(
        '--out', required=True, type=Path, metavar='FILE.pkl', help='where the proposals go'
    )
    parser.add_argument(
        '--method',
        choices=[*get_args(Search), 'grid'],
        default='fast',
        help='default: %(default)s',
    )
    parser.add_argument(
        '--width',
        type=_positive,
        default=SEARCH_WIDTH,
        help='of a search: px to which images are resized before (default: %(default)s)',
    )
    parser.add_argument(
        '--least',
        type=_positive,
        default=16,
        help='of the grid: side of the smallest square, px (default: %(default)s)',
    )
    parser.add_argument(
        '--workers', type=_positive, default=4, help='number of threads (default: %(default)s)'
    )
    return parser.parse_args(argv)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f'must be at least 1, got {number}')
    return number


if __name__ == '__main__':
    sys.exit(main())
