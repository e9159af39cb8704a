"""Proposals of an image, and their file for mmdet's ``proposal_file``.

mmdet reads a pickle of a dict: the last folder and the name of each image, such as
``'train/7.jpg'``, and for each a dict with ``bboxes``, (N, 4) corners in px of the image's file.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import numpy as np

from mmdet_ext.data.coco.annotations import load_coco, usable_annotations
from mmdet_ext.data.images import decode_image
from mmdet_ext.data.reports import LayoutError, Tally
from mmdet_ext.utils.files import whole_file

Array = np.ndarray[Any, Any]
Search = Literal['fast', 'quality', 'single']
#: Width to which R-CNN resizes images before the search, px.
SEARCH_WIDTH = 500

_SWITCHES: dict[Search, str] = {
    'fast': 'switchToSelectiveSearchFast',
    'quality': 'switchToSelectiveSearchQuality',
    'single': 'switchToSingleStrategy',
}
_RATIOS = (0.5, 1.0, 2.0)


@dataclass
class Proposals:
    """Proposals of the images of a COCO file.

    Attributes:
        boxes: proposals (N, 4) of each image, float32 corners in px, by mmdet's name of the image.
        unreadable: images without proposals, by the reason.
        ground_truth: number of ground-truth boxes that are no crowds.
        found: how many of them overlap a proposal by an IoU of 0.5 or more.
    """

    boxes: dict[str, Array]
    unreadable: Tally
    ground_truth: int = 0
    found: int = 0

    def __str__(self) -> str:
        count = sum(map(len, self.boxes.values()))
        share = f'{self.found / self.ground_truth:.1%}' if self.ground_truth else 'none'
        text = (
            f'{count} proposals for {len(self.boxes)} images, {count / len(self.boxes):.0f} per '
            f'image; of {self.ground_truth} ground-truth boxes {share} are found at IoU 0.5'
        )
        return f'{text}. Left out: {self.unreadable}' if self.unreadable else text


def selective_search(image: Array, search: Search = 'fast', width: int = SEARCH_WIDTH) -> Array:
    """Propose boxes by selective search, which merges regions that look alike.

    The search is OpenCV's, of its contrib modules. It draws random numbers, by which it orders
    boxes: two runs of one process give the same boxes in different orders. Here they are sorted.

    Args:
        image: pixels (height, width, 3), uint8, BGR.
        search: strategies that are combined: 'fast', 'quality' (more of them, several times as
            slow), or one alone.
        width: the image is resized to this width before, px, because the search depends on it.

    Returns:
        Boxes as of `sorted_boxes`, px of ``image``.

    Raises:
        ModuleNotFoundError: if OpenCV lacks its contrib modules.
        ValueError: if ``search`` is none of the above.

    References:
        Uijlings et al., Selective Search for Object Recognition, 2013. The width: Girshick et al.,
        Rich feature hierarchies, 2014, section 2.
    """
    if search not in _SWITCHES:
        raise ValueError(f'search must be one of {get_args(Search)}, got {search!r}')
    if not hasattr(cv2, 'ximgproc'):
        raise ModuleNotFoundError(
            'selective search is in cv2.ximgproc, which this OpenCV '
            f'({cv2.__version__}) lacks: in an environment of its own, `pip install '
            'opencv-contrib-python-headless` in place of opencv-python, as both are the module '
            'cv2; or take the method grid, which needs nothing',
            name='cv2.ximgproc',
        )
    scale = width / image.shape[1]
    resized = cv2.resize(image, (width, max(1, round(image.shape[0] * scale))))
    searcher = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    searcher.setBaseImage(resized)
    getattr(searcher, _SWITCHES[search])()
    corner, size = np.split(np.asarray(searcher.process(), np.float64).reshape(-1, 4), 2, 1)
    back = np.array(image.shape[1::-1]) / np.array(resized.shape[1::-1])
    return sorted_boxes(np.concatenate([corner * back, (corner + size) * back], 1))


def grid_windows(image: Array, least: int = 16) -> Array:
    """Propose windows of several sizes and three ratios, each half a window from the next.

    It looks at nothing in the image, and stands in for a search where there is none.

    Args:
        image: pixels (height, width, 3).
        least: side of the smallest square, px, at least 1. Each further one is twice as large.

    Returns:
        Boxes as of `sorted_boxes`; the whole image is one of them.
    """
    if least < 1:
        raise ValueError(f'least must be at least 1, got {least}')
    height, width = image.shape[:2]
    boxes = [np.array([[0.0, 0.0, width, height]])]
    side = float(least)
    while side < max(width, height):
        for ratio in _RATIOS:
            window = np.array([side * ratio**0.5, side / ratio**0.5])
            if (window <= (width, height)).all():
                x, y = (_starts(*each) for each in zip((width, height), window, strict=True))
                corners = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
                boxes.append(np.concatenate([corners, corners + window], 1))
        side *= 2
    return sorted_boxes(np.concatenate(boxes))


def sorted_boxes(boxes: Array) -> Array:
    """Return each box once, the largest first, and those of one area by their corners.

    mmdet's ``LoadProposals(num_max_proposals=...)`` takes the first.

    Args:
        boxes: (N, 4), corners.

    Returns:
        (M, 4), float32. Boxes without area are left out.

    >>> sorted_boxes(np.array([[5, 0, 7, 2], [0, 0, 4, 4], [1, 0, 3, 2], [5, 0, 7, 2]])).tolist()
    [[0.0, 0.0, 4.0, 4.0], [1.0, 0.0, 3.0, 2.0], [5.0, 0.0, 7.0, 2.0]]
    """
    unique = np.unique(np.asarray(boxes, np.float32).reshape(-1, 4), axis=0)
    sides = unique[:, 2:] - unique[:, :2]
    unique = unique[(sides > 0).all(1)]
    # np.unique sorts by the corners, and a stable sort keeps that order within an area.
    area = np.prod(unique[:, 2:] - unique[:, :2], axis=1)
    return unique[np.argsort(-area, kind='stable')]


def find_proposals(
    ann_file: Path, image_dir: Path, propose: Callable[[Array], Array], workers: int = 1
) -> Proposals:
    """Propose boxes for each image of a COCO file.

    Args:
        ann_file: COCO annotations, whose boxes are for the report alone.
        image_dir: folder of the images, as ``data_prefix`` of the data set names it.
        propose: function from an image, as OpenCV reads it, to its proposals.
        workers: number of threads, at least 1. The result does not depend on it.

    Returns:
        The proposals. Images that cannot be read have none, and are counted; `CocoDataset` drops
        them too.

    Raises:
        LayoutError: if the annotations cannot be read, if no image can, or if two images have one
            name for mmdet, which takes the last folder and the file's name alone.
    """
    coco = load_coco(ann_file)
    wanted: dict[Any, list[list[float]]] = {}
    for record in usable_annotations(coco)[0]:
        if not record.get('iscrowd', 0):
            wanted.setdefault(record['image_id'], []).append(record['bbox'])
    paths = [image_dir / image['file_name'] for image in coco['images']]
    _check_names(ann_file, paths)
    found = Proposals({}, Tally())
    with ThreadPoolExecutor(workers) as pool:
        results = pool.map(partial(_propose_for, propose), paths)
        for image, path, boxes in zip(coco['images'], paths, results, strict=True):
            if isinstance(boxes, str):
                found.unreadable.add(boxes, str(path))
                continue
            found.boxes[proposal_name(path)] = boxes
            best = _best_overlaps(wanted.get(image['id'], []), boxes)
            found.ground_truth += len(best)
            found.found += int((best >= 0.5).sum())
    if not found.boxes:
        raise LayoutError(f'{image_dir} has no image of {ann_file} to read: {found.unreadable}')
    return found


def _check_names(ann_file: Path, paths: list[Path]) -> None:
    """Raise LayoutError if two images have one name for mmdet."""
    seen: dict[str, Path] = {}
    for path in paths:
        name = proposal_name(path)
        if name in seen:
            raise LayoutError(
                f'{ann_file}: two images are {name!r} for mmdet, which names proposals by the last '
                f'folder and the file alone ({seen[name]}, {path}): rename one'
            )
        seen[name] = path


def _propose_for(propose: Callable[[Array], Array], path: Path) -> Array | str:
    """Return the proposals of an image file, or the reason that it cannot be read."""
    try:
        pixels = decode_image(path.read_bytes())
    except OSError as error:
        return error.strerror or str(error)
    except ValueError as error:
        return str(error)
    return propose(pixels)


def proposal_name(path: Path) -> str:
    """Return the name by which mmdet looks for the proposals of an image.

    >>> proposal_name(Path('data/coco/val2017/000000000139.jpg'))
    'val2017/000000000139.jpg'
    """
    return f'{path.parent.name}/{path.name}'


def write_proposals(boxes: dict[str, Array], path: Path) -> None:
    """Write proposals as a file for the option ``proposal_file`` of mmdet's data sets.

    Args:
        boxes: proposals (N, 4) of each image by its name (`proposal_name`).
        path: the file, whose suffix must be ``.pkl``, by which MMEngine chooses how to read it.

    Raises:
        LayoutError: if the suffix is another one.
    """
    if path.suffix != '.pkl':
        raise LayoutError(f'the file of proposals must end in .pkl, got {path}')
    content = {name: dict(bboxes=each) for name, each in boxes.items()}
    with whole_file(path) as part:
        part.write_bytes(pickle.dumps(content, protocol=4))


def _starts(length: int, window: float) -> Array:
    """Return where windows begin that cover a length, each half a window from the next or less."""
    count = int(np.ceil((length - window) / (window / 2))) + 1
    return np.linspace(0, length - window, count)


def _best_overlaps(wanted: list[list[float]], boxes: Array) -> Array:
    """Return the IoU of each ground-truth box, as x, y, width and height, with its best proposal.

    It is 0 where there is no proposal.
    """
    best = []
    for x, y, width, height in wanted:
        first = np.maximum(boxes[:, :2], (x, y))
        last = np.minimum(boxes[:, 2:], (x + width, y + height))
        overlap = np.prod(np.clip(last - first, 0, None), axis=1)
        union = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) + width * height - overlap
        best.append((overlap / union).max(initial=0.0))
    return np.array(best)
