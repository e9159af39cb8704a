"""Boxes of data samples of mmdet, predicted and annotated, as rows of an image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mmdet_ext.analysis.detection.columns import ImageRows
from mmdet_ext.detection.metrics.coco_images import as_array


def predicted_rows(sample: Mapping[str, Any]) -> ImageRows:
    """Take the detections of a data sample.

    Args:
        sample: data sample with ``img_id`` and ``pred_instances``, as mmdet's evaluator and
            ``DumpDetResults`` have it.

    Raises:
        ValueError: if it lacks one of them, or boxes, scores or labels.
    """
    lacking = [key for key in ('img_id', 'pred_instances') if key not in sample]
    if lacking:
        raise ValueError(
            f'a result has no {" and no ".join(lacking)}; it has {", ".join(map(str, sample))}: '
            'are these results of a detector?'
        )
    found = sample['pred_instances']
    absent = [key for key in ('bboxes', 'scores', 'labels') if key not in found]
    if absent:
        raise ValueError(f'image {sample["img_id"]!r}: pred_instances has no {", ".join(absent)}')
    boxes, scores, labels = (as_array(found[key]) for key in ('bboxes', 'scores', 'labels'))
    path = str(sample.get('img_path') or '')
    return ImageRows(sample['img_id'], boxes.reshape(-1, 4), labels, scores, path=path)


def annotated_rows(sample: Mapping[str, Any]) -> ImageRows:
    """Take the ground truth of a data sample.

    ``instances`` come first, which are in pixels of the file; then ``gt_instances`` and
    ``ignored_instances``, which are so where LoadAnnotations comes after Resize, as in mmdet's test
    pipelines. Ignored boxes are crowds, as in mmdet's CocoMetric.

    Args:
        sample: data sample, or entry of a data set, with ``img_id``.

    Raises:
        ValueError: if it has no ground truth.
    """
    path = str(sample.get('img_path') or '')
    if sample.get('instances') is not None:
        entries = sample['instances']
        return ImageRows(
            sample['img_id'],
            np.array([entry['bbox'] for entry in entries], np.float64).reshape(-1, 4),
            np.array([entry['bbox_label'] for entry in entries], np.int64),
            crowd=np.array([bool(entry.get('ignore_flag', 0)) for entry in entries], bool),
            path=path,
        )
    # Instances without a box are false, so that only None stands for none.
    parts = [sample.get(key) for key in ('gt_instances', 'ignored_instances')]
    if parts[0] is None or 'bboxes' not in parts[0]:
        raise ValueError(
            f'image {sample.get("img_id")!r}: its data sample has no ground truth; load '
            "annotations in the test pipeline, dict(type='LoadAnnotations', with_bbox=True) after "
            'Resize, or give ann_file'
        )
    given = [part for part in parts if part is not None and 'bboxes' in part]
    boxes = [as_array(part['bboxes']).reshape(-1, 4) for part in given]
    flags = [np.full(len(box), number == 1) for number, box in enumerate(boxes)]
    return ImageRows(
        sample['img_id'],
        np.concatenate(boxes),
        np.concatenate([as_array(part['labels']) for part in given]).astype(np.int64),
        crowd=np.concatenate(flags),
        path=path,
    )
