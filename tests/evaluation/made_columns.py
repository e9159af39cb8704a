"""Made ground truth and detections in columns, as backends of evaluation take them."""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as mask_api

from mmdet_ext.evaluation.columns import Detections, Federated, GroundTruth
from mmdet_ext.evaluation.protocol import Kind, Scores

SIDE = 260
BACKENDS = ('hotcoco', 'faster_coco_eval', 'pycocotools')
#: Difference of two backends in the last digit: one of them adds no epsilon to its counts.
ROUNDING = 1e-15


def polygon(box: list[float]) -> list[list[float]]:
    """Return a box without its lower left corner as COCO's polygon."""
    left, top, width, height = box
    return [[left, top, left + width, top, left + width, top + height, left, top + height / 2]]


def run_lengths(box: list[float]) -> dict[str, Any]:
    """Return that polygon as compressed run lengths."""
    merged: dict[str, Any] = mask_api.merge(mask_api.frPyObjects(polygon(box), SIDE, SIDE))
    return merged


def made(
    seed: int = 0,
    kind: Kind = 'bbox',
    images: int = 6,
    categories: int = 4,
    keypoints: int = 17,
    federated: bool = False,
) -> tuple[GroundTruth, Detections]:
    """Make boxes of all sizes with crowds, and detections near them with many equal scores."""
    generator = np.random.default_rng(seed)
    count, found = 6 * images, 60 * images
    corner = generator.uniform(0, 150, (count, 2))
    boxes = np.concatenate([corner, generator.uniform(5, 110, (count, 2))], 1)
    image = np.sort(generator.integers(0, images, count))
    category = generator.integers(0, categories, count)
    crowd = generator.random(count) < (0.0 if federated else 0.1)
    source = np.sort(generator.integers(0, count, found))
    near = boxes[source] + generator.normal(0, 6, (found, 4))
    near[:, 2:] = np.abs(near[:, 2:]) + 1
    wrong = generator.random(found) < 0.2
    score = generator.integers(0, 12, found) / 12
    masks = found_masks = sizes = points = found_points = lists = None
    if kind == 'segm':
        masks = [polygon(box) for box in boxes.tolist()]
        for row in np.flatnonzero(crowd).tolist():
            masks[row] = run_lengths(boxes[row].tolist())
        found_masks = [run_lengths(box)['counts'] for box in near.tolist()]
        sizes = np.full((found, 2), SIDE)
    if kind == 'keypoints':
        inside = generator.random((count, keypoints, 2)) * boxes[:, None, 2:]
        seen = generator.integers(0, 3, (count, keypoints, 1))
        seen[::7] = 0
        points = np.concatenate([boxes[:, None, :2] + inside, seen], 2)
        moved = points[source][..., :2] + generator.normal(0, 4, (found, keypoints, 2))
        found_points = np.concatenate([moved, np.ones((found, keypoints, 1))], 2)
    if federated:
        lists = Federated(
            [np.unique(generator.integers(0, categories, 2)) for _ in range(images)],
            [np.unique(generator.integers(0, categories, 1)) for _ in range(images)],
            ['rcf'[row % 3] for row in range(categories)],
        )
    truth = GroundTruth(
        image_ids=list(range(images)),
        sizes=np.full((images, 2), SIDE),
        category_ids=list(range(categories)),
        names=[f'class {row}' for row in range(categories)],
        image=image,
        category=category,
        boxes=boxes,
        area=boxes[:, 2] * boxes[:, 3] * 0.8,
        crowd=crowd,
        flagged=np.zeros(count, np.bool_),
        masks=masks,
        keypoints=points,
        federated=lists,
    )
    label = np.where(wrong, generator.integers(0, categories, found), category[source])
    detections = Detections(image[source], label, near, score, found_masks, sizes, found_points)
    return truth, detections


def assert_same_scores(one: Scores, other: Scores) -> None:
    """Assert that two backends fill the same tables."""
    np.testing.assert_allclose(one.precision, other.precision, rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(one.recall, other.recall, rtol=0, atol=ROUNDING)
