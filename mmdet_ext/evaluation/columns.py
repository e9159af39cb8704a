"""Ground truth and detections as columns: one row per box, no object per box.

Images and categories are named by their row in the lists of the ground truth, both of which
ascend by id. A backend gets row + 1 as the id. Ids of a file can be anything: in any order, from
0, twice the same. Backends disagree about each of these (``docs/evaluation.md``), and none about a
row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
Floats = NDArray[np.float64]

#: Most detections of an image that LVIS counts, over all categories.
LVIS_CAP = 300


@dataclass(frozen=True)
class Federated:
    """Facts of LVIS about images and categories beside boxes.

    Attributes:
        negative: for each image, rows of the categories that are known to be absent.
        not_exhaustive: for each image, rows of the categories of which boxes may be missing.
        frequency: 'r', 'c' or 'f' for each category.
    """

    negative: Sequence[Rows]
    not_exhaustive: Sequence[Rows]
    frequency: Sequence[str]

    def of_categories(self, place: Rows) -> Federated:
        """Return the lists of some of the categories, given the new row of each, or -1."""

        def moved(lists: Sequence[Rows]) -> list[Rows]:
            return [new[new >= 0] for new in (place[each] for each in lists)]

        kept = [name for name, row in zip(self.frequency, place.tolist(), strict=False) if row >= 0]
        return Federated(moved(self.negative), moved(self.not_exhaustive), kept)


@dataclass(frozen=True)
class GroundTruth:
    """Annotated boxes of a data set.

    Attributes:
        image_ids: ids of the images, ascending.
        sizes: heights and widths (I, 2) in pixels.
        category_ids: ids of the categories, ascending.
        names: names of the categories.
        image: row (G,) of each box's image.
        category: row (G,) of each box's category.
        boxes: left, top, width, height (G, 4) in pixels.
        area: areas (G,) in square pixels, by which boxes are small, medium or large.
        crowd: whether a box (G,) is a crowd: an ignore region that may hold many detections.
        flagged: whether a box (G,) has an ``ignore`` flag, which COCO's protocol does not read.
        masks: COCO's segmentation of each box, polygons or run lengths; None where not read.
        keypoints: x, y and visibility (G, K, 3); None where not read.
        federated: what LVIS adds; None for COCO.
    """

    image_ids: Sequence[Any]
    sizes: Rows
    category_ids: Sequence[int]
    names: Sequence[str]
    image: Rows
    category: Rows
    boxes: Floats
    area: Floats
    crowd: NDArray[np.bool_]
    flagged: NDArray[np.bool_]
    masks: Sequence[Any] | None = None
    keypoints: Floats | None = None
    federated: Federated | None = None

    def __len__(self) -> int:
        return len(self.image)

    def rows(self, picked: Rows) -> GroundTruth:
        """Return the ground truth with some of the boxes, in the order of the rows."""
        return replace(
            self,
            image=self.image[picked],
            category=self.category[picked],
            boxes=self.boxes[picked],
            area=self.area[picked],
            crowd=self.crowd[picked],
            flagged=self.flagged[picked],
            masks=None if self.masks is None else [self.masks[row] for row in picked.tolist()],
            keypoints=None if self.keypoints is None else self.keypoints[picked],
        )

    def of_categories(self, rows: Rows) -> GroundTruth:
        """Return the ground truth of some of the categories.

        Args:
            rows: rows of the categories, ascending.
        """
        place = np.full(len(self.category_ids) + 1, -1, np.int64)
        place[rows] = np.arange(len(rows))
        kept = self.rows(np.flatnonzero(place[self.category] >= 0))
        chosen = rows.tolist()
        return replace(
            kept,
            category=place[kept.category],
            category_ids=[self.category_ids[row] for row in chosen],
            names=[self.names[row] for row in chosen],
            federated=None if self.federated is None else self.federated.of_categories(place),
        )


@dataclass(frozen=True)
class Detections:
    """Detections of all images, in the order in which equal scores are ranked.

    Attributes:
        image: row (N,) of each detection's image in the ground truth.
        category: row (N,) of its category there.
        boxes: left, top, width, height (N, 4) in pixels.
        scores: scores (N,).
        masks: compressed run lengths of each detection; None without masks.
        mask_sizes: heights and widths (N, 2) of the masks; None without masks.
        keypoints: x, y and score (N, K, 3); None without keypoints.
    """

    image: Rows
    category: Rows
    boxes: Floats
    scores: Floats
    masks: Sequence[bytes] | None = None
    mask_sizes: Rows | None = None
    keypoints: Floats | None = None

    def __len__(self) -> int:
        return len(self.image)

    def rows(self, chosen: NDArray[Any]) -> Detections:
        """Return some of the detections, by a mask or by rows."""
        picked = np.flatnonzero(chosen) if chosen.dtype == np.bool_ else chosen
        return Detections(
            self.image[picked],
            self.category[picked],
            self.boxes[picked],
            self.scores[picked],
            None if self.masks is None else [self.masks[row] for row in picked.tolist()],
            None if self.mask_sizes is None else self.mask_sizes[picked],
            None if self.keypoints is None else self.keypoints[picked],
        )

    def rle(self, row: int) -> dict[str, Any]:
        """Return the mask of a detection as COCO writes it.

        Raises:
            ValueError: if the detections have no masks.
        """
        if self.masks is None or self.mask_sizes is None:
            raise ValueError('the detections have no masks')
        return {'size': self.mask_sizes[row].tolist(), 'counts': self.masks[row]}


def rows_of(ids: Sequence[Any], known: Sequence[Any], what: str, missing: str) -> Rows:
    """Return the rows of ids in a list.

    Args:
        ids: ids to look up.
        known: the list, each id once.
        what: name of such an id, for the error.
        missing: where the id is missing, and what to do.

    Raises:
        ValueError: if an id is not in the list; the first five are named.
    """
    places = {each: row for row, each in enumerate(known)}
    rows = np.fromiter((places.get(each, -1) for each in ids), np.int64, len(ids))
    if (rows < 0).any():
        unknown = list(dict.fromkeys(each for each, row in zip(ids, rows, strict=True) if row < 0))
        named = ', '.join(repr(each) for each in unknown[:5]) + (', ...' if unknown[5:] else '')
        raise ValueError(f'{len(unknown)} {what} ({named}) {missing}')
    return rows


def check_detections(found: Detections, truth: GroundTruth) -> None:
    """Refuse detections that have no rank or no place.

    A score of NaN makes every order of the detections right. A box with a NaN overlaps each box by
    more than any threshold in pycocotools, as no comparison with it is true.

    Raises:
        ValueError: if a score is NaN or a box is not finite; the image is named.
    """
    for name, bad in (
        ('score is NaN', np.isnan(found.scores)),
        ('box is not finite', ~np.isfinite(found.boxes).all(1)),
    ):
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise ValueError(
                f'{int(bad.sum())} of {len(found)} detections cannot be ranked: the {name}, first '
                f'in image {truth.image_ids[int(found.image[row])]!r}; has the training diverged?'
            )


def without_categories(truth: GroundTruth, found: Detections) -> tuple[GroundTruth, Detections]:
    """Return both with one category, 'object', for all: what proposals are measured by.

    Boxes of an image keep the order by category, then by place, in which pycocotools joins the
    categories where ``useCats`` is 0: equal scores are ranked by it.
    """
    ordered = truth.rows(np.argsort(truth.category, kind='stable'))
    one = replace(
        ordered,
        category_ids=[1],
        names=['object'],
        category=np.zeros(len(truth), np.int64),
        federated=None,
    )
    picked = found.rows(np.argsort(found.category, kind='stable'))
    return one, replace(picked, category=np.zeros(len(picked), np.int64))


def capped(found: Detections, number: int) -> Detections:
    """Return the detections of the highest scores of each image, over all categories.

    Of two equal scores the earlier counts; the order stays.
    """
    order = np.lexsort((-found.scores, found.image))  # stable
    image = found.image[order]
    rank = np.arange(len(order)) - np.searchsorted(image, image, side='left')
    return found.rows(np.sort(order[rank < number]))


def federated_only(truth: GroundTruth, found: Detections) -> Detections:
    """Return the detections that LVIS counts.

    Of each image these are the `LVIS_CAP` of the highest scores over all categories, the earlier
    one of two equal; and of these, those of categories that the image is annotated for: categories
    of its boxes, and those that are known to be absent.

    Raises:
        ValueError: if the ground truth has no lists of LVIS.

    References:
        Gupta et al., LVIS: A Dataset for Large Vocabulary Instance Segmentation, CVPR 2019,
        section 2.
    """
    if truth.federated is None:
        raise ValueError('the ground truth lacks the lists of LVIS: neg_category_ids, ...')
    found = capped(found, LVIS_CAP)
    count = max(1, len(truth.category_ids))
    annotated = [truth.image * count + truth.category]
    annotated += [row * count + absent for row, absent in enumerate(truth.federated.negative)]
    pairs = found.image * count + found.category
    return found.rows(np.isin(pairs, np.concatenate(annotated)))
