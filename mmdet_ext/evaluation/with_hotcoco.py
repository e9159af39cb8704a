"""Backend hotcoco: columns from end to end, in Rust."""

from __future__ import annotations

from typing import Any

import numpy as np

from mmdet_ext.evaluation.as_dicts import (
    boxes_and_areas,
    categories_of,
    found_dicts,
    images_of,
    truth_dict,
)
from mmdet_ext.evaluation.columns import Detections, GroundTruth
from mmdet_ext.evaluation.protocol import Protocol, Scores


def evaluate(truth: GroundTruth, found: Detections, protocol: Protocol) -> Scores:
    """Fill the tables with hotcoco.

    Boxes go in as one table (N, 7). Masks are dictionaries, as its interface has no column for
    them, and so are keypoints.
    """
    from hotcoco import COCO, COCOeval

    if protocol.kind == 'keypoints':
        annotated = COCO(truth_dict(truth, protocol))
        detected = annotated.load_res(found_dicts(found, protocol))
    else:
        masks = list(truth.masks or ()) if protocol.kind == 'segm' else None
        annotated = COCO.from_arrays(
            images_of(truth, protocol),
            categories_of(truth),
            truth.image + 1,
            truth.category + 1,
            truth.boxes,
            ids=np.arange(1, len(truth) + 1),
            area=truth.area,
            iscrowd=truth.crowd.astype(np.int64),
            segmentation=masks,
        )
        table = np.empty((len(found), 7))
        table[:, 0], table[:, 6] = found.image + 1, found.category + 1
        table[:, 1:5], table[:, 5] = found.boxes, found.scores
        if protocol.kind == 'segm':
            rles: list[Any] = [found.rle(row) for row in range(len(found))]
            detected = annotated.load_res(table, segmentation=rles)
            areas = boxes_and_areas(found, protocol)[1]
            detected.update_anns(ids=np.arange(1, len(found) + 1), area=areas)
        else:
            del found
            detected = annotated.load_res(table)
        del table
    run = COCOeval(annotated, detected, protocol.kind, lvis_style=protocol.federated)
    run.params.iou_thrs = list(protocol.iou_thrs)
    run.params.max_dets = list(protocol.max_dets)
    if protocol.kind == 'keypoints':
        run.params.kpt_oks_sigmas = list(protocol.sigmas)
    run.evaluate()
    run.accumulate()
    tables: Any = run.eval
    return Scores(np.asarray(tables['precision']), np.asarray(tables['recall']))
