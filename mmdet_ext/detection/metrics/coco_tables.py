"""Names of COCO's figures as mmdet has them, and the tables of its log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mmdet_ext.evaluation.protocol import Figures

Items = Mapping[str, tuple[str, float | None, str]]

#: Name of a figure -> its kind, threshold and area; the number of detections is below.
ITEMS: Items = {
    'mAP': ('AP', None, 'all'),
    'mAP_50': ('AP', 0.5, 'all'),
    'mAP_75': ('AP', 0.75, 'all'),
    'mAP_s': ('AP', None, 'small'),
    'mAP_m': ('AP', None, 'medium'),
    'mAP_l': ('AP', None, 'large'),
    'AR@100': ('AR', None, 'all'),
    'AR@300': ('AR', None, 'all'),
    'AR@1000': ('AR', None, 'all'),
    'AR_s@1000': ('AR', None, 'small'),
    'AR_m@1000': ('AR', None, 'medium'),
    'AR_l@1000': ('AR', None, 'large'),
}
KEYPOINT_ITEMS: Items = {
    **{name: item for name, item in ITEMS.items() if name[0] == 'm' and name != 'mAP_s'},
    'AR': ('AR', None, 'all'),
    'AR_50': ('AR', 0.5, 'all'),
    'AR_75': ('AR', 0.75, 'all'),
    'AR_m': ('AR', None, 'medium'),
    'AR_l': ('AR', None, 'large'),
}
#: Figures that are reported without ``metric_items``.
USUAL = {
    'bbox': list(ITEMS)[:6],
    'segm': list(ITEMS)[:6],
    'proposal': list(ITEMS)[6:],
    'keypoints': list(KEYPOINT_ITEMS)[:5],
}
#: Recalls at a number of detections that is not the largest -> its place.
NUMBERED = {'AR@100': 0, 'AR@300': 1}

HEADERS = ('category', 'mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')


def class_row(figures: Figures, row: int) -> tuple[float, ...]:
    """Return the figures of a class, NaN where it has no boxes to find: those of `HEADERS`."""

    def at(iou: float | None = None, area: str = 'all') -> float:
        return figures.precision(iou, area, None, [row], float('nan'))

    sizes = [at(area=name) for name in ('small', 'medium', 'large')]
    return (at(), at(0.5), at(0.75), *sizes)


def item_of(figures: Figures, items: Items, name: str) -> float:
    """Return a figure by name, at the number of detections at which pycocotools takes it.

    Of boxes and masks that is 100 for mAP, whatever the protocol's numbers, and -1 if 100 is not
    among them.
    """
    kind, iou, area = items[name]
    numbers = figures.protocol.max_dets
    if kind == 'AR':
        return figures.recall(iou, area, numbers[NUMBERED.get(name, -1)])
    head = name == 'mAP' and figures.protocol.kind != 'keypoints'
    return figures.precision(iou, area, 100 if head else None)


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in plain characters, with a rule below the headers."""
    widths = [max(len(line[k]) for line in (headers, *rows)) for k in range(len(headers))]
    rule = '+' + '+'.join('-' * (width + 2) for width in widths) + '+'

    def line(cells: Sequence[str]) -> str:
        padded = (f' {cell:<{width}} ' for cell, width in zip(cells, widths, strict=True))
        return '|' + '|'.join(padded) + '|'

    return '\n'.join([rule, line(headers), rule, *map(line, rows), rule])


def rounded(value: float) -> float:
    """Return a figure with three decimals, rounded as NumPy does, and so stock."""
    return float(np.round(np.float64(value), 3))
