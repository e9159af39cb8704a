"""Backend pycocotools: the reference, slow."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np

from mmdet_ext.evaluation.as_dicts import found_dicts, truth_dict
from mmdet_ext.evaluation.columns import Detections, GroundTruth
from mmdet_ext.evaluation.protocol import Protocol, Scores


def evaluate(truth: GroundTruth, found: Detections, protocol: Protocol) -> Scores:
    """Fill the tables with pycocotools.

    It has no rules of LVIS: an unmatched detection of a category that is not exhaustive in its
    image is ignored here, after pycocotools has matched it.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    class Evaluation(COCOeval):  # type: ignore[misc]
        """Evaluation that ignores what LVIS does not count."""

        def evaluateImg(self, imgId: int, catId: int, *limits: Any) -> Any:  # noqa: N802
            """Evaluate one image and category."""
            result = super().evaluateImg(imgId, catId, *limits)
            if result is not None and catId in partial.get(imgId, ()):
                unmatched = result['dtMatches'] == 0
                result['dtIgnore'] = np.logical_or(result['dtIgnore'], unmatched)
            return result

    content = truth_dict(truth, protocol)
    partial = {
        image['id']: frozenset(image.get('not_exhaustive_category_ids', ()))
        for image in content['images']
    }
    with contextlib.redirect_stdout(io.StringIO()):
        annotated, detected = COCO(), COCO()
        annotated.dataset = content
        detected.dataset = {**content, 'annotations': found_dicts(found, protocol)}
        for data in (annotated, detected):
            data.createIndex()
        run = Evaluation(annotated, detected, protocol.kind)
        run.params.iouThrs = np.array(protocol.iou_thrs)
        run.params.maxDets = list(protocol.max_dets)
        if protocol.kind == 'keypoints':
            run.params.kpt_oks_sigmas = np.array(protocol.sigmas)
        run.evaluate()
        run.accumulate()
    return Scores(run.eval['precision'], run.eval['recall'])
