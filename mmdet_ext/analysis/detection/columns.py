"""Ground truth and detections of a data set as columns, checked when they are made.

All functions of this folder take them. Boxes are (x, y, width, height) in pixels as COCO has them,
in double precision, so that overlaps are those of pycocotools to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_SHOWN = 3


class ResultError(ValueError):
    """Error in results or ground truth that were given; the message says what and where."""


@dataclass(frozen=True)
class GroundTruth:
    """Annotated boxes of a data set, one row per box.

    Attributes:
        image: place of the image of each box among the images, shape (G,).
        label: class of each box, from 0, shape (G,).
        box: x, y, width and height in pixels, shape (G, 4).
        area: area in pixels, which sizes follow, shape (G,).
        crowd: whether detections on the box are ignored, as COCO's crowds are, shape (G,).
    """

    image: np.ndarray
    label: np.ndarray
    box: np.ndarray
    area: np.ndarray
    crowd: np.ndarray

    def __len__(self) -> int:
        return len(self.label)


@dataclass(frozen=True)
class Detections:
    """Detections on the images of a data set, one row per detection.

    Attributes:
        image: place of the image of each detection among the images, shape (N,).
        label: class of each detection, from 0, shape (N,).
        box: x, y, width and height in pixels, shape (N, 4).
        score: score of each detection, shape (N,).
    """

    image: np.ndarray
    label: np.ndarray
    box: np.ndarray
    score: np.ndarray

    def __len__(self) -> int:
        return len(self.label)


@dataclass(frozen=True)
class TruthSet:
    """Images of a data set with their ground truth.

    Attributes:
        image_ids: id of each image, I of them.
        classes: name of each class, C of them.
        truth: the annotated boxes.
        paths: path or file name of each image; empty where it is not known.
    """

    image_ids: list[Any]
    classes: list[str]
    truth: GroundTruth
    paths: list[str]


@dataclass(frozen=True)
class ImageRows:
    """Boxes of one image as a data set or a detector gives them.

    Attributes:
        image_id: id of the image.
        box: left, top, right and bottom in pixels, shape (K, 4).
        label: class of each box, shape (K,).
        score: score of each detection, shape (K,); None for ground truth.
        crowd: flag of each ground-truth box, shape (K,); None for none.
        path: path or file name of the image.
    """

    image_id: Any
    box: np.ndarray
    label: np.ndarray
    score: np.ndarray | None = None
    crowd: np.ndarray | None = None
    path: str = ''


def truth_of_coco(
    content: Mapping[str, Any], classes: Sequence[str] | None = None, name: str = 'the annotations'
) -> TruthSet:
    """Read the ground truth of a COCO annotation file.

    As in pycocotools, a box is ignored where ``iscrowd`` is set, and a flag ``ignore`` has no
    effect. A missing ``iscrowd`` is 0, a missing ``area`` the product of the sides.

    Args:
        content: content of the file: images, annotations, categories.
        classes: names of the classes in the order of their labels; None takes all categories in
            the order of the file. Boxes of other classes are left out.
        name: name of the file for messages.

    Returns:
        The images in ascending order of their ids, as pycocotools sorts them.

    Raises:
        ResultError: if a part is absent, a class is unknown, or an annotation is of no image.
    """
    for key in ('images', 'annotations', 'categories'):
        if not isinstance(content.get(key), list):
            raise ResultError(f'{name}: no list {key!r}; is it a COCO annotation file?')
    by_name = {str(entry['name']): entry['id'] for entry in content['categories']}
    wanted = list(by_name) if classes is None else [str(each) for each in classes]
    unknown = [each for each in wanted if each not in by_name]
    if unknown:
        raise ResultError(f'{name} has no class {unknown}; its classes are {list(by_name)}')
    labels = {by_name[each]: label for label, each in enumerate(wanted)}
    images = {entry['id']: str(entry.get('file_name', '')) for entry in content['images']}
    ids = _in_order(images)
    places = {each: place for place, each in enumerate(ids)}
    kept = [entry for entry in content['annotations'] if entry['category_id'] in labels]
    strange = [entry['image_id'] for entry in kept if entry['image_id'] not in places]
    if strange:
        raise ResultError(f'{name}: annotations of images that are not listed: {_some(strange)}')
    box = np.array([entry['bbox'] for entry in kept], np.float64).reshape(-1, 4)
    area = np.array([entry.get('area', np.nan) for entry in kept], np.float64)
    truth = GroundTruth(
        np.array([places[entry['image_id']] for entry in kept], np.int64),
        np.array([labels[entry['category_id']] for entry in kept], np.int64),
        box,
        np.where(np.isnan(area), box[:, 2] * box[:, 3], area),
        np.array([bool(int(entry.get('iscrowd', 0))) for entry in kept], bool),
    )
    return TruthSet(ids, wanted, truth, [images[each] for each in ids])


def truth_of_rows(rows: Sequence[ImageRows], classes: Sequence[str]) -> TruthSet:
    """Join the ground truth of images, each given by its corners.

    Args:
        rows: one entry per image.
        classes: names of the classes in the order of their labels.

    Raises:
        ResultError: if an image comes twice, or a label is no class.
    """
    places = _places(rows, 'the ground truth')
    image, box, label = _joined(rows, places, len(classes), 'ground truth')
    crowd = [
        np.zeros(len(row.label), bool) if row.crowd is None else np.asarray(row.crowd, bool)
        for row in _by_place(rows, places)
    ]
    area = box[:, 2] * box[:, 3]
    flags = np.concatenate(crowd) if crowd else np.zeros(0, bool)
    truth = GroundTruth(image, label, box, area, flags)
    ids = list(places)
    paths = {row.image_id: row.path for row in rows}
    return TruthSet(ids, [str(each) for each in classes], truth, [paths[each] for each in ids])


def detections_of_rows(
    rows: Sequence[ImageRows],
    truth: TruthSet,
    name: str = 'the results',
    max_per_image: int | None = None,
) -> Detections:
    """Join the detections of images, and check that they belong to the ground truth.

    Args:
        rows: one entry per image, also for those without a detection.
        truth: the data set.
        name: name of the results for messages.
        max_per_image: largest number of detections of one class in an image, those with the
            highest scores (COCO's ``maxDets``); None keeps all.

    Returns:
        The detections in the order of the images.

    Raises:
        ResultError: if there is no image, an image is of another data set, comes twice or is
            missing, a score is not finite, a box is not finite, or a label is no class.
    """
    if not rows:
        raise ResultError(f'{name}: no image; an empty test, or another file?')
    given = {row.image_id for row in rows}
    known = set(truth.image_ids)
    strange = [row.image_id for row in rows if row.image_id not in known]
    if strange:
        raise ResultError(
            f'{name}: {len(strange):,} of {len(rows):,} images are not in the ground truth '
            f'({_some(strange)}; it has {_some(truth.image_ids)}): are they of another data set?'
        )
    _places(rows, name)
    absent = [each for each in truth.image_ids if each not in given]
    if absent:
        raise ResultError(
            f'{name}: {len(absent):,} of {len(truth.image_ids):,} images of the ground truth have '
            f'no result ({_some(absent)}): a cut test, or another data set?'
        )
    places = {each: place for place, each in enumerate(truth.image_ids)}
    image, box, label = _joined(rows, places, len(truth.classes), name)
    scores = [_scores(row, name) for row in _by_place(rows, places)]
    found = Detections(image, label, box, np.concatenate(scores))
    return found if max_per_image is None else _capped(found, max_per_image)


def restricted(truth: TruthSet, image_ids: Iterable[Any]) -> TruthSet:
    """Return the part of a data set that some images are.

    Args:
        truth: the data set.
        image_ids: ids of the images to keep; others that it does not have are no error.
    """
    wanted = set(image_ids)
    keep = np.array([each in wanted for each in truth.image_ids], bool)
    if keep.all():
        return truth
    new_place = np.cumsum(keep) - 1
    boxes = truth.truth
    rows = keep[boxes.image] if len(boxes) else np.zeros(0, bool)
    part = GroundTruth(
        new_place[boxes.image[rows]],
        boxes.label[rows],
        boxes.box[rows],
        boxes.area[rows],
        boxes.crowd[rows],
    )
    chosen = np.flatnonzero(keep)
    return TruthSet(
        [truth.image_ids[k] for k in chosen],
        truth.classes,
        part,
        [truth.paths[k] for k in chosen],
    )


def _joined(
    rows: Sequence[ImageRows], places: Mapping[Any, int], classes: int, name: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Join places, boxes and labels of images, in the order of the places."""
    ordered = _by_place(rows, places)
    counts = [len(row.label) for row in ordered]
    for row in ordered:
        if np.shape(row.box) != (len(row.label), 4):
            raise ResultError(
                f'{name}, image {row.image_id!r}: {len(row.label)} labels need boxes of shape '
                f'({len(row.label)}, 4), got {np.shape(row.box)}'
            )
    image = np.repeat(np.array([places[row.image_id] for row in ordered], np.int64), counts)
    corners = [np.asarray(row.box, np.float64).reshape(-1, 4) for row in ordered]
    box = np.concatenate([np.zeros((0, 4)), *corners])
    label = np.concatenate([np.zeros(0, np.int64), *(_labels(row, name) for row in ordered)])
    outside = np.flatnonzero((label < 0) | (label >= classes))
    ids = list(places)
    if len(outside):
        raise ResultError(
            f'{name}, image {ids[image[outside[0]]]!r}: label {label[outside[0]]} is no class; '
            f'there are {classes}: are the classes those of the config?'
        )
    wrong = np.flatnonzero(~np.isfinite(box).all(axis=1))
    if len(wrong):
        raise ResultError(
            f'{name}, image {ids[image[wrong[0]]]!r}: box {box[wrong[0]].tolist()} is not finite '
            f'({len(wrong):,} such boxes)'
        )
    box[:, 2:] -= box[:, :2]
    return image, box, label


def _labels(row: ImageRows, name: str) -> np.ndarray:
    label = np.asarray(row.label)
    if len(label) and label.dtype.kind not in 'iu':
        raise ResultError(
            f'{name}, image {row.image_id!r}: labels must be integers, got {label.dtype}'
        )
    return label.astype(np.int64)


def _scores(row: ImageRows, name: str) -> np.ndarray:
    if row.score is None or np.shape(row.score) != np.shape(row.label):
        got = 'none' if row.score is None else np.shape(row.score)
        raise ResultError(
            f'{name}, image {row.image_id!r}: one score per detection is needed, shape '
            f'{np.shape(row.label)}, got {got}'
        )
    score = np.asarray(row.score, np.float64)
    if not np.isfinite(score).all():
        wrong = int((~np.isfinite(score)).sum())
        raise ResultError(
            f'{name}, image {row.image_id!r}: {wrong} of {len(score)} scores are not finite '
            f'({score[~np.isfinite(score)][0]}): did the training diverge?'
        )
    return score


def _capped(found: Detections, most: int) -> Detections:
    """Keep the best detections of each class in each image."""
    if most < 1:
        raise ValueError(f'max_per_image must be 1 or more, or None, got {most}')
    rank = group_ranks(found.image, found.label, found.score)
    keep = rank < most
    return Detections(found.image[keep], found.label[keep], found.box[keep], found.score[keep])


def group_ranks(image: np.ndarray, label: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Rank detections within their image and class by decreasing score; ties keep their order.

    Args:
        image: place of the image, shape (N,).
        label: class, shape (N,).
        score: score, shape (N,).

    Returns:
        Rank from 0 of each detection, shape (N,).
    """
    order = np.lexsort((np.arange(len(score)), -score, label, image))
    first = np.ones(len(order), bool)
    first[1:] = (np.diff(image[order]) != 0) | (np.diff(label[order]) != 0)
    starts = np.flatnonzero(first)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order)) - np.repeat(starts, np.diff([*starts, len(order)]))
    return rank


def _places(rows: Sequence[ImageRows], name: str) -> dict[Any, int]:
    """Return the place of each image in the order of the ids.

    Raises:
        ResultError: if an image comes twice.
    """
    ids = {row.image_id: '' for row in rows}
    if len(ids) < len(rows):
        seen: set[Any] = set()
        twice = [r.image_id for r in rows if r.image_id in seen or seen.add(r.image_id)]  # type: ignore[func-returns-value]
        raise ResultError(f'{name}: images that come twice: {_some(twice)}')
    return {each: place for place, each in enumerate(_in_order(ids))}


def _in_order(ids: Mapping[Any, str]) -> list[Any]:
    """Sort ids, as pycocotools does; ids of several types keep their order."""
    try:
        return sorted(ids)
    except TypeError:
        return list(ids)


def _by_place(rows: Sequence[ImageRows], places: Mapping[Any, int]) -> list[ImageRows]:
    return sorted(rows, key=lambda row: places[row.image_id])


def _some(values: Sequence[Any]) -> str:
    shown = ', '.join(repr(value) for value in values[:_SHOWN])
    return shown + (', ...' if len(values) > _SHOWN else '')
