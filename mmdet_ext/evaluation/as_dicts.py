"""Columns as COCO's dictionaries, for the backends that take nothing else.

Ids are rows + 1: ascending, from 1, once each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdet_ext.evaluation.columns import Detections, GroundTruth
from mmdet_ext.evaluation.protocol import Protocol


def images_of(truth: GroundTruth, protocol: Protocol) -> list[dict[str, Any]]:
    """Return COCO's images, with the lists of LVIS where the protocol asks for them."""
    images = [
        {'id': row, 'height': height, 'width': width}
        for row, (height, width) in enumerate(truth.sizes.tolist(), start=1)
    ]
    if protocol.federated and truth.federated is not None:
        lists = truth.federated
        for image, absent, partial in zip(
            images, lists.negative, lists.not_exhaustive, strict=True
        ):
            image['neg_category_ids'] = (absent + 1).tolist()
            image['not_exhaustive_category_ids'] = (partial + 1).tolist()
    return images


def categories_of(truth: GroundTruth) -> list[dict[str, Any]]:
    """Return COCO's categories, with the frequencies of LVIS where there are some."""
    categories = [{'id': row, 'name': name} for row, name in enumerate(truth.names, start=1)]
    if truth.federated is not None:
        for category, frequency in zip(categories, truth.federated.frequency, strict=True):
            category['frequency'] = frequency
    return categories


def truth_dict(truth: GroundTruth, protocol: Protocol) -> dict[str, Any]:
    """Return the ground truth as the content of a COCO file."""
    annotations: list[dict[str, Any]] = [
        {'id': row, 'image_id': image, 'category_id': category, 'bbox': box}
        | {'area': area, 'iscrowd': int(crowd)}
        for row, (image, category, box, area, crowd) in enumerate(
            zip(
                (truth.image + 1).tolist(),
                (truth.category + 1).tolist(),
                truth.boxes.tolist(),
                truth.area.tolist(),
                truth.crowd.tolist(),
                strict=True,
            ),
            start=1,
        )
    ]
    if protocol.kind == 'segm' and truth.masks is not None:
        for annotation, mask in zip(annotations, truth.masks, strict=True):
            annotation['segmentation'] = mask
    if protocol.kind == 'keypoints' and truth.keypoints is not None:
        for annotation, points in zip(annotations, truth.keypoints, strict=True):
            annotation['keypoints'] = points.ravel().tolist()
            annotation['num_keypoints'] = int((points[:, 2] > 0).sum())
    return {
        'images': images_of(truth, protocol),
        'categories': categories_of(truth),
        'annotations': annotations,
    }


def found_dicts(found: Detections, protocol: Protocol) -> list[dict[str, Any]]:
    """Return the detections as COCO's annotations with scores and areas."""
    boxes, areas = boxes_and_areas(found, protocol)
    annotations: list[dict[str, Any]] = [
        {'id': row, 'image_id': image, 'category_id': category, 'bbox': box}
        | {'area': area, 'score': score, 'iscrowd': 0}
        for row, (image, category, box, area, score) in enumerate(
            zip(
                (found.image + 1).tolist(),
                (found.category + 1).tolist(),
                boxes.tolist(),
                areas.tolist(),
                found.scores.tolist(),
                strict=True,
            ),
            start=1,
        )
    ]
    if protocol.kind == 'segm':
        for row, annotation in enumerate(annotations):
            annotation['segmentation'] = found.rle(row)
    if protocol.kind == 'keypoints' and found.keypoints is not None:
        for annotation, points in zip(annotations, found.keypoints, strict=True):
            annotation['keypoints'] = points.ravel().tolist()
    return annotations


def boxes_and_areas(
    found: Detections, protocol: Protocol
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the boxes (N, 4) and areas (N,) of detections, as pycocotools' ``loadRes`` does.

    The area is that of the box, for masks that of the mask, and for keypoints that of the box
    around them.
    """
    if protocol.kind == 'segm':
        return found.boxes, mask_areas([found.rle(row) for row in range(len(found))])
    if protocol.kind == 'keypoints' and found.keypoints is not None and len(found):
        points = found.keypoints[..., :2]
        low, high = points.min(1), points.max(1)
        boxes = np.concatenate([low, high - low], 1)
        return boxes, boxes[:, 2] * boxes[:, 3]
    return found.boxes, found.boxes[:, 2] * found.boxes[:, 3]


def mask_areas(masks: Sequence[dict[str, Any]]) -> NDArray[np.float64]:
    """Return the areas (N,) of compressed run lengths in pixels."""
    from pycocotools import mask as mask_api

    # One at a time: of 256 masks and more at once, pycocotools 2.0.11 raises an OverflowError.
    return np.fromiter((mask_api.area(mask) for mask in masks), np.float64, len(masks))
