"""Count the boxes per class, and show the class weights that each scheme derives from them.

    python tools/data/class_counts.py data/annotations/instances_train.json --out counts.json
    python tools/data/class_counts.py data/VOC2007 --splits train --out counts.json

A loss takes the file as ``alpha=dict(type='inverse_log', counts='counts.json')`` (FocalLoss) or
``class_weight=dict(...)`` (CrossEntropyLoss). A bar chart, counts.png, is written beside it. Count
the data that you train on, with the classes in the order of your config.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mmdet_ext.data.coco.class_counts import count_classes
from mmdet_ext.data.reports import LayoutError
from mmdet_ext.utils.files import write_json


def main(argv: list[str] | None = None) -> int:
    """Run the tool; return 0, or 2 for bad input."""
    args = _parse(argv)
    try:
        counts = count_classes(args.annotations, args.classes, args.splits)
        image = args.out.with_suffix('.png')
        if image == args.out:
            raise LayoutError(f'--out must be a json file, got {args.out}: a chart goes beside it')
        # Imported late, so that wrong data is refused at once.
        from mmdet_ext.plots.class_counts import draw_class_counts
        from mmdet_ext.studies.class_weights import weights_table

        print(weights_table(counts))
        for note in counts.notes:
            print(f'note: {note}')
        draw_class_counts(counts.classes, counts.counts, counts.images, image)
        write_json(args.out, counts.as_json())
    except (LayoutError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    print(f'\n{args.out}\n{image}')
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'annotations',
        nargs='+',
        type=Path,
        metavar='ANN',
        help='COCO json file, or Pascal VOC folder',
    )
    parser.add_argument(
        '--out',
        required=True,
        type=Path,
        metavar='FILE.json',
        help='where the counts go; a chart of the same name beside it',
    )
    parser.add_argument(
        '--classes',
        nargs='+',
        metavar='NAME',
        help='classes in the order of their labels (default: all, as in the files)',
    )
    parser.add_argument(
        '--splits',
        nargs='+',
        metavar='NAME',
        help='of VOC folders, lists in ImageSets/Main (default: all of them)',
    )
    return parser.parse_args(argv)


if __name__ == '__main__':
    sys.exit(main())
