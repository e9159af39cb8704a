"""Class weights that each scheme derives from the number of boxes per class."""

from __future__ import annotations

from mmdet_ext.data.coco.class_counts import ClassCounts
from mmdet_ext.functional.classification.class_weights import CLASS_WEIGHT_SCHEMES


def weights_table(counts: ClassCounts) -> str:
    """Format one line per class: boxes, ignored boxes, share, and the weight by each scheme.

    Args:
        counts: Boxes per class; at least one box is counted.

    Returns:
        The table, followed by the number of images and the boxes left out.
    """
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
        f'\n{total} boxes in {counts.images} images, '
        f'{counts.images_without_boxes} of them without boxes'
    )
    lines += [f'left out: {count} boxes, {reason}' for reason, count in counts.left_out.items()]
    return '\n'.join(lines)
