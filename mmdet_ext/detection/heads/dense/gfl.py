"""Head of Generalised Focal Loss (GFL) that computes the targets of a batch at once."""

from __future__ import annotations

from collections.abc import Sequence

from mmdet.models.dense_heads import GFLHead as MMDetGFLHead
from torch import Tensor

from mmdet_ext.detection.heads.dense.batch_targets import AnchorTargets, flat_levels
from mmdet_ext.detection.heads.dense.fitting import as_points
from mmdet_ext.detection.heads.dense.matched_batch import MatchedBatch
from mmdet_ext.functional.assignment.geometry import Priors
from mmdet_ext.registry import MODELS


@MODELS.register_module()
class GFLHead(AnchorTargets, MMDetGFLHead):  # type: ignore[misc]
    """Drop-in replacement of mmdet's ``GFLHead`` that computes the targets of a batch at once.

    Options, weights and losses are mmdet's. Use it with our `ATSSAssigner`, or any other of ours.
    Those that use predictions get its scores, in which class and overlap are joined, and the
    boxes that its distributions stand for. Whatever the assigner, the target of a score is the IoU
    of the predicted box. With an assigner of mmdet, mmdet's code computes the targets; it also
    draws, where a sampler does (see `BatchTargets`).
    """

    gives_levels = True

    def box_targets(self, matched: MatchedBatch) -> Tensor:
        """Return the ground-truth boxes (N, 4), px, whatever ``reg_decoded_bbox`` says."""
        return matched.boxes

    def decoded(self, priors: Priors, bbox_preds: Sequence[Tensor]) -> Tensor:
        """Decode the boxes (B, P, 4), px, from the distributions of their distances."""
        flat = flat_levels(bbox_preds, 4 * (self.reg_max + 1)).float()
        points, strides = as_points(priors, self.prior_generator).as_points()
        sides = self.integral(flat).view(len(flat), -1, 4) * strides[:, :1]
        boxes: Tensor = self.bbox_coder.decode(points.expand(len(flat), -1, -1), sides)
        return boxes
