"""Frames in which the boxes of Pascal VOC files live: pixels of the image, or others."""

from __future__ import annotations

from mmdet_ext.data.coco.sizes import drawn_at_stated_size, read_size, show_sizes, size_difference
from mmdet_ext.data.coco.values import in_fractions
from mmdet_ext.data.voc.annotation import Box, VocAnnotation


def frame_problem(annotation: VocAnnotation, size: tuple[int, int]) -> tuple[str, str]:
    """Return the reason why the boxes of an image are certainly not in pixels of its file.

    Args:
        annotation: Content of the xml file.
        size: Width and height of the image as the loader turns it, in px.

    Returns:
        The reason with what to do, and the detail; empty texts if the boxes may be in pixels.
    """
    boxes = [item.corners for item in annotation.objects]
    if in_fractions((x0, y0, x1 - x0, y1 - y0) for x0, y0, x1, y1 in boxes):
        reason = 'boxes within 0..1, as in fractions of the image; multiply them by its sides'
        return reason, ','.join(map(str, boxes[0]))
    difference = size_difference(annotation.size, size)
    stated = read_size(*annotation.size)
    if not stated or difference in (None, 'size missing', 'size wrong'):
        return '', ''
    if not drawn_at_stated_size(boxes, stated, size):
        return '', ''
    return (
        f'{difference} in the xml, and the boxes fit that alone; turn or resize boxes or image',
        show_sizes(annotation.size, size),
    )


def fit_box(corners: Box, size: tuple[int, int], inclusive: bool) -> tuple[Box | None, str]:
    """Clip a box to the image.

    Returns:
        The edges, or None if no box is left, and the problem, or an empty text.
    """
    x0, y0, x1, y1 = corners
    if inclusive:  # pixels 1 to n, both included, reach from edge 0 to edge n
        x0, y0 = x0 - 1, y0 - 1
    if x1 < x0 or y1 < y0:
        return None, 'inverted'
    if x1 == x0 or y1 == y0:
        return None, 'zero area'
    clipped = (max(x0, 0), max(y0, 0), min(x1, size[0]), min(y1, size[1]))
    if clipped[2] <= clipped[0] or clipped[3] <= clipped[1]:
        return None, 'outside the picture'  # a key in the files of class_counts: kept as it is
    return clipped, '' if clipped == (x0, y0, x1, y1) else 'clipped to the image'
