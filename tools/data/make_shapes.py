"""Make a synthetic set of shapes in COCO form, with masks if asked for, and print its numbers.

    python tools/data/make_shapes.py --out data/shapes
    python tools/data/make_shapes.py --out data/shapes --masks
    python tools/data/make_shapes.py --out data/shapes_few --shapes 1 3 --distractors 2 6

With --distractors an image also has pentagons, which are annotated nowhere: background that looks
like an object. With --masks each image also has labels per pixel, masks/{train,val}/NAME.png:
0 background, 1 circle, 2 square, 3 triangle, and 255 for pixels of mixed colour at outlines.
"""

from __future__ import annotations

import argparse
import sys

from mmdet_ext.data.synthetic.shape_scenes import SHAPES_PER_IMAGE, Contents, ShapesError
from mmdet_ext.data.synthetic.shapes import make_shapes


def main(argv: list[str] | None = None) -> int:
    """Run the tool; return the exit code, 2 for bad input."""
    args = _parse(argv)
    width, height = args.size
    try:
        report = make_shapes(
            args.out,
            args.train,
            args.val,
            width,
            height,
            args.seed,
            args.overwrite,
            not args.no_preview,
            args.masks,
            Contents(tuple(args.shapes), tuple(args.distractors)),
        )
    except (ShapesError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    print(f'wrote {report.out_dir}\n{report.table()}')
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--out',
        required=True,
        metavar='DIR',
        help='folder for images/, annotations/, masks/ and previews',
    )
    parser.add_argument(
        '--train', type=int, default=240, help='training images (default: %(default)s)'
    )
    parser.add_argument(
        '--val', type=int, default=60, help='validation images (default: %(default)s)'
    )
    parser.add_argument(
        '--size',
        type=int,
        nargs=2,
        default=(240, 180),
        metavar=('WIDTH', 'HEIGHT'),
        help='size of the images in pixels (default: 240 180)',
    )
    parser.add_argument(
        '--shapes',
        type=int,
        nargs=2,
        default=SHAPES_PER_IMAGE,
        metavar=('FEWEST', 'MOST'),
        help='shapes of the classes in an image (default: 6 20)',
    )
    parser.add_argument(
        '--distractors',
        type=int,
        nargs=2,
        default=(0, 0),
        metavar=('FEWEST', 'MOST'),
        help='pentagons in an image (default: 0 0)',
    )
    parser.add_argument('--seed', type=int, default=0, help='default: %(default)s')
    parser.add_argument(
        '--overwrite', action='store_true', help='replace a set that this tool wrote to DIR earlier'
    )
    parser.add_argument('--masks', action='store_true', help='also write labels per pixel')
    parser.add_argument('--no-preview', action='store_true', help='leave the previews out')
    return parser.parse_args(argv)


if __name__ == '__main__':
    sys.exit(main())
