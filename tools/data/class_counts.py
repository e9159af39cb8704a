"""Count the boxes of each class, and show what each scheme of class weights would make of it.

    python tools/data/class_counts.py data/annotations/instances_train.json --out counts.json
    python tools/data/class_counts.py data/VOC2007 --splits train --out counts.json

A loss takes the file as ``alpha=dict(type='inverse_log', counts='counts.json')`` (FocalLoss) or
``class_weight=dict(...)`` (CrossEntropyLoss). A bar chart, counts.png, goes beside it. Count what
you train on, with the classes in the order of your config.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mmdet_ext.data.coco.class_counts import ClassCounts, count_classes
from mmdet_ext.data.reports import LayoutError
from mmdet_ext.utils.files import write_json

# Counts that differ by more than this are drawn on a logarithmic axis.
_LOG_FROM = 50


def main(argv: list[str] | None = None) -> int:
    """Run the tool; returns 0, or 2 for bad input."""
    args = _parse(argv)
    try:
        counts = count_classes(args.annotations, args.classes, args.splits)
        image = args.out.with_suffix('.png')
        if image == args.out:
            raise LayoutError(f'--out must be a json file, got {args.out}: a chart goes beside it')
        print(table(counts))
        draw(counts, image)
        write_json(args.out, counts.as_json())
    except (LayoutError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    print(f'\n{args.out}\n{image}')
    return 0


def table(counts: ClassCounts) -> str:
    """A line a class: boxes, ignored boxes, share, and the weight by each scheme."""
    from mmdet_ext.functional.classification.class_weights import CLASS_WEIGHT_SCHEMES

    weights = [scheme(counts.counts).tolist() for scheme in CLASS_WEIGHT_SCHEMES.values()]
    head = ['class', 'boxes', 'ignored', 'share', *CLASS_WEIGHT_SCHEMES]
    total = sum(counts.counts)
    rows = [
        [name, str(count), str(ignored), f'{count / total:.2%}', *(f'{w:.3f}' for w in own)]
        for name, count, ignored, *own in zip(
            counts.classes, counts.counts, counts.ignored, *weights, strict=True
        )
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [
        f'{row[0]:<{widths[0]}}  '
        + '  '.join(f'{cell:>{width}}' for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in [head, *rows]
    ]
    lines.append(
        f'\n{total} boxes in {counts.images} pictures, '
        f'{counts.images_without_boxes} of them without boxes'
    )
    lines += [f'left out: {count} boxes, {reason}' for reason, count in counts.left_out.items()]
    return '\n'.join(lines)


def draw(counts: ClassCounts, path: Path) -> None:
    """Draw a bar a class, the first at the top, with its number of boxes."""
    from mmdet_ext.plots.style import COLOURS, new_figure, save_figure

    rows = len(counts.classes)
    figure = new_figure(8, 1.3 + 0.3 * max(rows, 3))
    axes = figure.add_subplot()
    bars = axes.barh(range(rows), counts.counts, color=COLOURS[0])
    axes.bar_label(bars, padding=3)
    axes.set_yticks(range(rows), counts.classes)
    axes.invert_yaxis()
    present = [count for count in counts.counts if count]
    logarithmic = max(present) > _LOG_FROM * min(present)
    if logarithmic:
        axes.set_xscale('log')
        axes.set_xlim(0.8, 4 * max(present))  # room for the numbers
    else:
        axes.set_xlim(0, 1.12 * max(present))
    axes.set_xlabel('boxes, logarithmic' if logarithmic else 'boxes')
    axes.set_title(f'Boxes by class: {sum(present)} in {counts.images} pictures')
    axes.grid(axis='x', alpha=0.25)
    save_figure(figure, path)


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
