"""Frames in which the boxes of Pascal VOC files live: pixels of the image, or others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mmdet_ext.data.coco.image_files import check_image_files
from mmdet_ext.data.coco.sizes import size_difference
from mmdet_ext.data.coco.values import in_fractions
from mmdet_ext.data.voc.annotation import Box, VocAnnotation


def find_misdrawn(
    images: Mapping[Path, tuple[VocAnnotation, tuple[int, int]]],
) -> dict[Path, str]:
    """Find the images whose boxes are drawn at a stated size that is not that of the file.

    They are found as in COCO files: images of one difference are judged together.

    Args:
        images: Content of the xml file, and width and height of the image as the loader turns it in
            px, per image.

    Returns:
        The difference, the stated and the true size of each such image.
    """
    unequal = {
        path: annotation
        for path, (annotation, size) in images.items()
        if size_difference(annotation.size, size)
    }
    records = [
        {'id': number, 'file_name': path.name, 'width': width, 'height': height}
        for number, (path, annotation) in enumerate(unequal.items())
        for width, height in [annotation.size]
    ]
    boxes = [
        {'image_id': number, 'category_id': 0, 'bbox': [x0, y0, x1 - x0, y1 - y0]}
        for number, annotation in enumerate(unequal.values())
        for x0, y0, x1, y1 in (item.corners for item in annotation.objects)
    ]
    coco = {'images': records, 'annotations': boxes, 'categories': []}
    found = check_image_files(coco, list(unequal)).misdrawn if unequal else {}
    return {
        path: f'{size_difference(unequal[path].size, images[path][1])}, {shown}'
        for path, shown in found.items()
    }


def frame_problem(annotation: VocAnnotation, misdrawn: str | None) -> tuple[str, str]:
    """Return the reason why the boxes of an image are certainly not in pixels of its file.

    Args:
        annotation: Content of the xml file.
        misdrawn: Difference of the sizes if the boxes are drawn at the stated one; see
            :func:`find_misdrawn`.

    Returns:
        The reason with what to do, and the detail; empty texts if the boxes may be in pixels.
    """
    boxes = [item.corners for item in annotation.objects]
    if in_fractions((x0, y0, x1 - x0, y1 - y0) for x0, y0, x1, y1 in boxes):
        reason = 'boxes within 0..1, as in fractions of the image; multiply them by its sides'
        return reason, ','.join(map(str, boxes[0]))
    if misdrawn:
        return (
            'boxes drawn at another size than that of the file; resize or turn boxes or image',
            misdrawn,
        )
    return '', ''


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
