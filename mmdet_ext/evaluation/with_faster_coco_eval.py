"""Backend faster-coco-eval: matching in C++, over Python's dictionaries."""

from __future__ import annotations

import numpy as np

from mmdet_ext.evaluation.as_dicts import found_dicts, truth_dict
from mmdet_ext.evaluation.columns import Detections, GroundTruth
from mmdet_ext.evaluation.protocol import Protocol, Scores


def evaluate(truth: GroundTruth, found: Detections, protocol: Protocol) -> Scores:
    """Fill the tables with faster-coco-eval."""
    from faster_coco_eval import COCO, COCOeval_faster

    content = truth_dict(truth, protocol)
    annotated, detected = COCO(), COCO()
    annotated.dataset = content
    detected.dataset = {**content, 'annotations': found_dicts(found, protocol)}
    for data in (annotated, detected):
        data.createIndex()
    sigmas = list(protocol.sigmas) if protocol.kind == 'keypoints' else None
    run = COCOeval_faster(
        annotated,
        detected,
        protocol.kind,
        kpt_oks_sigmas=sigmas,
        lvis_style=protocol.federated,
    )
    run.params.iouThrs = np.array(protocol.iou_thrs)
    run.params.maxDets = list(protocol.max_dets)
    if protocol.kind == 'keypoints':
        # Its own categories are those with annotations.
        run.params.catIds = list(range(1, len(truth.category_ids) + 1))
    run.evaluate()
    run.accumulate()
    shape = (len(protocol.iou_thrs), -1, len(truth.category_ids), len(protocol.areas))
    return Scores(
        np.asarray(run.eval['precision']).reshape(*shape, len(protocol.max_dets)),
        np.asarray(run.eval['recall']).reshape(shape[0], *shape[2:], len(protocol.max_dets)),
    )
