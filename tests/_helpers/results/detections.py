"""Made ground truth and detections, and what pycocotools says of them."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np

from mmdet_ext.analysis.detection.columns import Detections, GroundTruth, TruthSet


def made_set(
    seed: int,
    images: int = 12,
    classes: int = 4,
    boxes: int = 6,
    found_per_box: float = 2.0,
    crowds: float = 0.15,
    ties: bool = False,
    side: int = 100,
) -> tuple[TruthSet, Detections]:
    """Make images with boxes, and detections near them, of wrong classes, twice and elsewhere.

    Args:
        seed: seed of the draw.
        images: number of images; some have no box, some no detection.
        classes: number of classes.
        boxes: mean number of boxes per image.
        found_per_box: mean number of detections per box; half as many lie anywhere.
        crowds: share of crowds.
        ties: whether scores and coordinates are coarse, so that many are equal.
        side: width and height of the images in px.
    """
    rng = np.random.default_rng(seed)
    image = np.sort(rng.integers(0, images, images * boxes))
    count = len(image)
    corner = rng.uniform(0, 0.7 * side, (count, 2))
    box = np.concatenate([corner, rng.uniform(0.05 * side, 0.4 * side, (count, 2))], axis=1)
    label = rng.integers(0, classes, count)
    crowd = rng.random(count) < crowds
    near = np.repeat(np.arange(count), rng.poisson(found_per_box, count))
    far = int(0.5 * found_per_box * count)
    found_box = np.concatenate(
        [
            box[near] + rng.normal(0, 0.04 * side, (len(near), 4)),
            np.concatenate(
                [rng.uniform(0, 0.7 * side, (far, 2)), rng.uniform(4, 0.4 * side, (far, 2))], 1
            ),
        ]
    )
    found_box[:, 2:] = np.maximum(found_box[:, 2:], 2)
    found_image = np.concatenate([image[near], rng.integers(0, images, far)])
    wrong = rng.random(len(near)) < 0.2
    found_label = np.concatenate(
        [
            np.where(wrong, rng.integers(0, classes, len(near)), label[near]),
            rng.integers(0, classes, far),
        ]
    )
    score = np.concatenate([rng.beta(3, 2, len(near)), rng.beta(2, 4, far)])
    if ties:
        score = np.round(score, 1)
        box = 8 * np.round(box / 8) + [0, 0, 8, 8]
        found_box = 8 * np.round(found_box / 8) + [0, 0, 8, 8]
    order = np.argsort(found_image, kind='stable')
    truth = GroundTruth(image, label, box, box[:, 2] * box[:, 3], crowd)
    found = Detections(found_image[order], found_label[order], found_box[order], score[order])
    ids = [10 + 3 * k for k in range(images)]
    names = [f'class {k}' for k in range(classes)]
    return TruthSet(ids, names, truth, [f'{k}.jpg' for k in ids]), found


def coco_content(data: TruthSet) -> dict[str, Any]:
    """Return the ground truth as the content of a COCO file."""
    truth = data.truth
    return {
        'images': [
            {'id': each, 'file_name': path, 'width': 100, 'height': 100}
            for each, path in zip(data.image_ids, data.paths, strict=True)
        ],
        'categories': [{'id': 7 + k, 'name': name} for k, name in enumerate(data.classes)],
        'annotations': [
            {
                'id': row + 1,
                'image_id': data.image_ids[truth.image[row]],
                'category_id': 7 + int(truth.label[row]),
                'bbox': truth.box[row].tolist(),
                'area': float(truth.area[row]),
                'iscrowd': int(truth.crowd[row]),
            }
            for row in range(len(truth))
        ],
    }


def coco_eval(data: TruthSet, found: Detections, iou_thresholds: Any, **params: Any) -> Any:
    """Evaluate with pycocotools, without a limit on the detections; return the ``COCOeval``."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    content = coco_content(data)
    results = [
        {
            'id': row + 1,
            'image_id': data.image_ids[found.image[row]],
            'category_id': 7 + int(found.label[row]),
            'bbox': found.box[row].tolist(),
            'score': float(found.score[row]),
            'area': float(found.box[row, 2] * found.box[row, 3]),
            'iscrowd': 0,
        }
        for row in range(len(found))
    ]
    truth, detections = COCO(), COCO()
    with contextlib.redirect_stdout(io.StringIO()):
        truth.dataset = content
        truth.createIndex()
        detections.dataset = {**content, 'annotations': results}
        detections.createIndex()
        evaluation = COCOeval(truth, detections, 'bbox')
        evaluation.params.iouThrs = np.asarray(iou_thresholds)
        evaluation.params.maxDets = [10**6]
        evaluation.params.areaRng = evaluation.params.areaRng[:1]
        evaluation.params.areaRngLbl = evaluation.params.areaRngLbl[:1]
        for name, value in params.items():
            setattr(evaluation.params, name, value)
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation
