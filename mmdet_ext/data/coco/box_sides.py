"""Widths and heights of the boxes of COCO files and Pascal VOC folders, for anchors.

Neither torch nor a host is imported, so that a command-line tool can refuse wrong data at once.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmdet_ext.data.coco.annotations import load_coco, usable_annotations
from mmdet_ext.data.coco.class_counts import why_unseen
from mmdet_ext.data.coco.sizes import read_size
from mmdet_ext.data.coco.values import read_flag
from mmdet_ext.data.coco.voc import convert_voc
from mmdet_ext.data.coco.voc_folder import VocError
from mmdet_ext.data.reports import LayoutError


@dataclass(frozen=True)
class BoxSides:
    """Boxes that training uses, by their sides.

    Attributes:
        sides: (N, 2) width and height of each box within its image, px.
        sizes: (N, 2) width and height of the image of each box, px.
        images: Number of images with such boxes.
        sources: Paths that were read.
        left_out: Number of boxes left out, per reason.
    """

    sides: np.ndarray
    sizes: np.ndarray
    images: int
    sources: list[str]
    left_out: dict[str, int]

    def resized(self, width: int, height: int, keep_ratio: bool = False) -> np.ndarray:
        """Return the sides (N, 2) after a resize of the images, px.

        Args:
            width: Width of the resized image, px.
            height: Height of the resized image, px.
            keep_ratio: Whether images are resized to fit into this size with their own ratio.

        Raises:
            ValueError: If a size is below 1.
        """
        if min(width, height) < 1:
            raise ValueError(f'images must be resized to 1 px or more, got {width} x {height}')
        factor = np.array([width, height]) / self.sizes
        if keep_ratio:
            factor = factor.min(axis=1, keepdims=True)
        return self.sides * factor


def read_box_sides(sources: Sequence[Path], splits: Sequence[str] | None = None) -> BoxSides:
    """Read the sides of all boxes that training uses, clipped to their images.

    Boxes that are ignored in training (crowds, VOC's difficult boxes), and those of images without
    a size, are left out and counted.

    Args:
        sources: COCO json files and Pascal VOC folders; a source named twice is read once.
        splits: Names of lists in ``ImageSets/Main`` of VOC folders; by default all. An image in
            several lists is read once.

    Returns:
        The sides, with what was left out.

    Raises:
        LayoutError: If a source cannot be read, or no box is left.
    """
    rows: list[tuple[float, float, float, float]] = []
    left_out: Counter[str] = Counter()
    images = 0
    paths = list(dict.fromkeys(Path(source).expanduser().resolve() for source in sources))
    for path in paths:
        seen: set[str] = set()
        for coco in _voc_contents(path, splits) if path.is_dir() else [load_coco(path)]:
            again = {image['id'] for image in coco['images'] if image['file_name'] in seen}
            images += _add(coco, again, rows, left_out)
            if path.is_dir():
                seen.update(image['file_name'] for image in coco['images'])
    if not rows:
        names = ', '.join(map(str, paths))
        raise LayoutError(
            f'no box of {names} is left to cluster; left out: {dict(left_out) or "none"}'
        )
    table = np.array(rows, dtype=np.float64)
    return BoxSides(
        table[:, :2], table[:, 2:], images, [str(path) for path in paths], dict(left_out)
    )


def _voc_contents(root: Path, splits: Sequence[str] | None) -> Iterator[dict[str, Any]]:
    """Yield the contents of each split of a VOC folder in COCO form."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            reports = convert_voc(root, folder, splits, difficult='crowd')
        except VocError as error:
            raise LayoutError(
                f'{error}\nA folder must be of VOC form; of other data, give the COCO json files'
            ) from error
        for report in reports:
            yield load_coco(report.path, f'{root}, split {report.split}')


def _add(
    coco: dict[str, Any],
    skipped: set[Any],
    rows: list[tuple[float, float, float, float]],
    left_out: Counter[str],
) -> int:
    """Append the boxes of a COCO file as width, height, image width, image height.

    Returns:
        The number of images with such boxes.
    """
    usable, _ = usable_annotations(coco)
    if len(usable) < len(coco['annotations']):
        left_out['unusable'] += len(coco['annotations']) - len(usable)
    sizes = {
        image['id']: read_size(image.get('width'), image.get('height')) for image in coco['images']
    }
    used = set()
    for box in usable:
        size = sizes[box['image_id']]
        if box['image_id'] in skipped:
            continue
        reason = why_unseen(box, size)
        if reason is None and read_flag(box.get('iscrowd')):
            reason = 'ignored in training'
        if reason is None and size is None:
            reason = 'of an image without a size'
        if reason is not None or size is None:
            left_out[str(reason)] += 1
            continue
        x, y, w, h = box['bbox']
        width, height = min(x + w, size[0]) - max(x, 0), min(y + h, size[1]) - max(y, 0)
        rows.append((width, height, *size))
        used.add(box['image_id'])
    return len(used)
