"""Files in COCO's and LVIS's form, read into columns.

What backends take differently, or raise errors about, is settled here and reported: an absent
``iscrowd`` or ``area``, ids from 0 or given twice, ``ignore`` flags, annotations of images or
categories that the file does not list.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmdet_ext.evaluation.as_dicts import mask_areas
from mmdet_ext.evaluation.columns import Federated, GroundTruth, Rows


class Reading(NamedTuple):
    """Content of a file.

    Attributes:
        truth: ground truth of all its categories.
        file_order: rows of the categories in the order of the file.
        notes: what is unusual in the file, a line each.
    """

    truth: GroundTruth
    file_order: Rows
    notes: tuple[str, ...]


def read_annotations(
    path: str | PathLike[str],
    masks: bool = False,
    keypoints: bool = False,
    federated: bool = False,
) -> Reading:
    """Read a file in COCO's form.

    Args:
        path: the json file.
        masks: keep the segmentations.
        keypoints: keep the keypoints.
        federated: keep the lists of LVIS.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no COCO file, or lacks what is asked for.
    """
    file = Path(path)
    try:
        content = json.loads(file.read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f'{file} is no json file: {error}') from error
    if not isinstance(content, dict) or not {'images', 'categories'} <= set(content):
        raise ValueError(f"{file} is no COCO file: it needs the keys 'images' and 'categories'")
    try:
        return from_content(content, masks, keypoints, federated)
    except ValueError as error:
        raise ValueError(f'{file}: {error}') from error


def from_content(
    content: Mapping[str, Any],
    masks: bool = False,
    keypoints: bool = False,
    federated: bool = False,
) -> Reading:
    """Return the columns of the content of a COCO file; see `read_annotations`."""
    images = {image['id']: image for image in content['images']}
    categories = {category['id']: category for category in content['categories']}
    image_ids, category_ids = sorted(images), sorted(categories)
    image_rows = {each: row for row, each in enumerate(image_ids)}
    category_rows = {each: row for row, each in enumerate(category_ids)}
    given = content.get('annotations') or []
    known = [
        each
        for each in given
        if each['image_id'] in image_rows and each['category_id'] in category_rows
    ]
    notes = _notes(given, known, federated)
    sizes = [[images[each].get(key, 0) for key in ('height', 'width')] for each in image_ids]
    segmentations = _segmentations(known) if masks else None
    truth = GroundTruth(
        image_ids=image_ids,
        sizes=np.array(sizes, np.int64).reshape(-1, 2),
        category_ids=category_ids,
        names=[str(categories[each].get('name', each)) for each in category_ids],
        image=_integers(image_rows[each['image_id']] for each in known),
        category=_integers(category_rows[each['category_id']] for each in known),
        boxes=_boxes(known),
        area=np.array([_area(each, images) for each in known], np.float64),
        crowd=np.array([bool(each.get('iscrowd', 0)) for each in known], np.bool_),
        flagged=np.array([bool(each.get('ignore', 0)) for each in known], np.bool_),
        masks=segmentations,
        keypoints=_keypoints(known) if keypoints else None,
        federated=_federated(images, categories, category_rows, image_ids) if federated else None,
    )
    file_order = _integers(category_rows[each] for each in categories)
    return Reading(truth, file_order, tuple(notes))


def _integers(values: Iterable[int]) -> Rows:
    return np.fromiter(values, np.int64)


def _boxes(known: Sequence[Mapping[str, Any]]) -> Any:
    boxes = [each.get('bbox') for each in known]
    for each, box in zip(known, boxes, strict=True):
        if box is None or len(box) != 4:
            raise ValueError(
                f'annotation {each.get("id")!r} of image {each["image_id"]!r} has no bbox of four '
                f'numbers: {box!r}'
            )
    return np.array(boxes, np.float64).reshape(-1, 4)


def _segmentations(known: Sequence[Mapping[str, Any]]) -> list[Any]:
    for each in known:
        if not each.get('segmentation'):
            raise ValueError(
                f'annotation {each.get("id")!r} of image {each["image_id"]!r} has no segmentation, '
                "which metric='segm' compares"
            )
    return [each['segmentation'] for each in known]


def _keypoints(known: Sequence[Mapping[str, Any]]) -> Any:
    points = [np.array(each.get('keypoints', ()), np.float64) for each in known]
    lengths = {len(each) for each in points}
    if len(lengths) > 1 or (lengths and (0 in lengths or min(lengths) % 3)):
        raise ValueError(
            "metric='keypoints' needs x, y and visibility of as many keypoints in each annotation; "
            f'there are annotations of {sorted(lengths)} numbers'
        )
    count = lengths.pop() // 3 if lengths else 0
    return np.array(points, np.float64).reshape(-1, count, 3)


def _area(annotation: Mapping[str, Any], images: Mapping[Any, Mapping[str, Any]]) -> float:
    """Return the area of an annotation: its own, that of its mask, or that of its box."""
    if annotation.get('area') is not None:
        return float(annotation['area'])
    image = images[annotation['image_id']]
    if annotation.get('segmentation') and {'height', 'width'} <= set(image):
        mask = _run_lengths(annotation['segmentation'], image['height'], image['width'])
        return float(mask_areas([mask])[0])
    _, _, width, height = annotation['bbox']
    return float(width) * float(height)


def _run_lengths(segmentation: Any, height: int, width: int) -> dict[str, Any]:
    from pycocotools import mask as mask_api

    if isinstance(segmentation, list):
        merged: dict[str, Any] = mask_api.merge(mask_api.frPyObjects(segmentation, height, width))
        return merged
    if isinstance(segmentation['counts'], list):
        single: dict[str, Any] = mask_api.frPyObjects(segmentation, height, width)
        return single
    return dict(segmentation)


def _federated(
    images: Mapping[Any, Mapping[str, Any]],
    categories: Mapping[int, Mapping[str, Any]],
    category_rows: Mapping[int, int],
    image_ids: Sequence[Any],
) -> Federated:
    def rows(image: Mapping[str, Any], key: str) -> Rows:
        return _integers(category_rows[each] for each in image[key] if each in category_rows)

    for key, among in (
        ('neg_category_ids', images),
        ('not_exhaustive_category_ids', images),
        ('frequency', categories),
    ):
        lacking = [each for each, entry in among.items() if key not in entry]
        if lacking:
            raise ValueError(
                f'{len(lacking)} of {len(among)} entries lack {key!r}, first {lacking[0]!r}: this '
                'is no LVIS file'
            )
    return Federated(
        [rows(images[each], 'neg_category_ids') for each in image_ids],
        [rows(images[each], 'not_exhaustive_category_ids') for each in image_ids],
        [str(categories[each]['frequency']) for each in sorted(categories)],
    )


def _notes(
    given: Sequence[Mapping[str, Any]], known: Sequence[Mapping[str, Any]], federated: bool
) -> list[str]:
    """List what is unusual about the annotations."""
    ids = [each.get('id') for each in given]
    flagged = sum(bool(each.get('ignore')) and not each.get('iscrowd') for each in known)
    no_crowd = 0 if federated else sum('iscrowd' not in each for each in known)
    no_area = sum(each.get('area') is None for each in known)
    notes = {
        'of an image or a category that the file does not list, which do not count': len(given)
        - len(known),
        "with an 'ignore' flag, which COCO's protocol does not read: they count, unless iscrowd "
        'is 1': flagged,
        "without 'iscrowd', taken as 0": no_crowd,
        "without 'area', taken from the mask, or from the box where there is none": no_area,
        'with the id 0, renumbered: pycocotools takes 0 for no match': ids.count(0),
        'with an id that another one has, renumbered': len(ids) - len(set(ids)),
    }
    return [f'{count} annotations {what}' for what, count in notes.items() if count]
