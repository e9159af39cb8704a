"""Make a synthetic set of people as jointed figures, with keypoints in COCO's form.

    python tools/make_stick_figures.py data/stick_figures
    python tools/make_stick_figures.py data/stick_figures --train 1200 --val 200 --seed 1

tools/data/make_stick_figures.py is the same tool. Prints the numbers of the set.
"""

from __future__ import annotations

import argparse
import sys

from mmdet_ext.data.synthetic.stick_figure_scenes import StickFiguresError
from mmdet_ext.data.synthetic.stick_figures import make_stick_figures

_EVERY = 50


def main(argv: list[str] | None = None) -> int:
    """Run the tool; return the exit code, 2 for bad input."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument('out', nargs='?', metavar='OUT', help='folder for images/ and annotations/')
    target.add_argument('--out', dest='folder', metavar='OUT', help='the same')
    parser.add_argument(
        '--train', type=int, default=600, help='training images (default: %(default)s)'
    )
    parser.add_argument(
        '--val', type=int, default=100, help='validation images (default: %(default)s)'
    )
    parser.add_argument(
        '--size',
        type=int,
        nargs=2,
        default=(192, 192),
        metavar=('WIDTH', 'HEIGHT'),
        help='size of the images in pixels (default: 192 192)',
    )
    parser.add_argument(
        '--people',
        type=int,
        nargs=2,
        default=(1, 4),
        metavar=('LEAST', 'MOST'),
        help='people in an image (default: 1 4)',
    )
    parser.add_argument('--seed', type=int, default=0, help='default: %(default)s')
    parser.add_argument(
        '--overwrite', action='store_true', help='replace a set that this tool wrote to OUT earlier'
    )
    parser.add_argument('--no-preview', action='store_true', help='leave the preview out')
    args = parser.parse_args(argv)
    width, height = args.size
    try:
        report = make_stick_figures(
            args.out or args.folder,
            args.train,
            args.val,
            width,
            height,
            args.seed,
            tuple(args.people),
            args.overwrite,
            not args.no_preview,
            _show,
        )
    except (StickFiguresError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    print(f'wrote {report.out_dir}\n{report.table()}')
    return 0


def _show(done: int, total: int) -> None:
    """Print the progress on a terminal's line."""
    if sys.stderr.isatty() and (done % _EVERY == 0 or done == total):
        print(f'\r{done} of {total} images', end='\n' if done == total else '', file=sys.stderr)


if __name__ == '__main__':
    sys.exit(main())
