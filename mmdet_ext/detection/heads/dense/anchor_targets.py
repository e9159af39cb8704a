"""Mixins for heads whose outputs are kept for the assigner, and for those with anchors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from mmdet.models.task_modules.samplers import PseudoSampler
from torch import Tensor

from mmdet_ext.detection.heads.dense.batch_targets import (
    BatchTargets,
    ImageTargets,
    flat_levels,
    per_image,
)
from mmdet_ext.detection.heads.dense.matched_batch import MatchedAssigner, MatchedBatch
from mmdet_ext.functional.assignment.geometry import Predictions, Priors


class KeepsOutputs(BatchTargets):
    """Mixin for heads whose ``loss_by_feat`` begins with class scores and boxes of each level.

    They are kept while it runs, for assigners that use predictions. `decoded` says what boxes
    they stand for.
    """

    _outputs: tuple[Sequence[Tensor], Sequence[Tensor]] | None = None

    def loss_by_feat(
        self, cls_scores: Sequence[Tensor], bbox_preds: Sequence[Tensor], *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """Run mmdet's ``loss_by_feat`` with the outputs at hand."""
        with self.outputs_kept(cls_scores, bbox_preds):
            losses: dict[str, Any] = super().loss_by_feat(cls_scores, bbox_preds, *args, **kwargs)
        return losses

    @contextmanager
    def outputs_kept(
        self, cls_scores: Sequence[Tensor], bbox_preds: Sequence[Tensor]
    ) -> Iterator[None]:
        """Hold the outputs by which assigners go within the context.

        Args:
            cls_scores: class scores (B, A * C, H, W) per level.
            bbox_preds: raw predictions of the boxes (B, A * D, H, W) per level.
        """
        self._outputs = (cls_scores, bbox_preds)
        try:
            yield
        finally:
            self._outputs = None

    def predicted(self, priors: Priors, used: tuple[str, ...] | None) -> Predictions | None:
        """Flatten the scores of all levels, and decode the boxes."""
        if self._outputs is None:
            return None
        scores, boxes = self._outputs
        kind = 'logits' if self.use_sigmoid_cls else 'probabilities'
        found: dict[str, Tensor] = {}
        if used is None or 'scores' in used:
            found[kind] = flat_levels(scores, self.cls_out_channels)
            if not self.use_sigmoid_cls:  # the last column is the background
                found[kind] = found[kind].softmax(-1)[..., :-1]
        if used is None or 'boxes' in used:
            found['boxes'] = self.decoded(priors, boxes)
        return Predictions(**found)

    def decoded(self, priors: Priors, bbox_preds: Sequence[Tensor]) -> Tensor:
        """Decode the predicted boxes by the head's coder.

        Args:
            priors: as the head has them.
            bbox_preds: raw predictions (B, A * 4, H, W) per level, for A priors per cell.

        Returns:
            Tensor: (B, P, 4), corners, px.
        """
        flat = flat_levels(bbox_preds, 4).float()
        anchors = priors.rows.expand_as(flat)
        boxes: Tensor = self.bbox_coder.decode(anchors.reshape(-1, 4), flat.reshape(-1, 4))
        return boxes.view_as(flat)


class AnchorTargets(KeepsOutputs):
    """Mixin for heads that learn boxes at anchors, and whose code assigns without predictions.

    Attributes:
        returns_anchors: whether the targets of an image begin with its anchors.
    """

    returns_anchors: bool = True
    assigner: Any

    def get_targets(self, *args: Any, **kwargs: Any) -> Any:
        """Run mmdet's ``get_targets``; a sampler draws from images that were matched at once."""
        if type(self.sampler) is PseudoSampler:
            return super().get_targets(*args, **kwargs)
        if getattr(self.sampler, 'add_gt_as_proposals', False):
            raise ValueError(
                f'{type(self.sampler).__name__} of {type(self).__name__} has '
                'add_gt_as_proposals=True, but a dense head has no room for boxes beside its '
                'anchors: set it to False'
            )
        own: Any = self.assigner
        with torch.no_grad():
            known = {key: kwargs[key] for key in kwargs if key != 'return_sampling_results'}
            matched = self.match_anchors(own, *args, drawn_from=True, **known)
        if matched is not None:
            self.assigner = MatchedAssigner(own, matched)
        try:
            return super().get_targets(*args, **kwargs)
        finally:
            self.assigner = own

    def batch_targets(self, *args: Any, **kwargs: Any) -> Iterable[ImageTargets] | None:
        """Compute ``[anchors,] labels, their weights, boxes, their weights, None, None, Sampled``.

        mmdet has the indices of positives and negatives in place of None, and reads neither.

        Args:
            *args: arguments of mmdet's ``get_targets``.
            **kwargs: keyword arguments of mmdet's ``get_targets``.
        """
        matched = self.match_anchors(self.assigner, *args, **kwargs)
        if matched is None:
            return None
        boxes = self.box_targets(matched)
        return per_image(
            *([matched.priors_per_image()] if self.returns_anchors else []),
            *matched.label_targets(self.num_classes, self.train_cfg['pos_weight']),
            matched.spread(boxes),
            matched.spread(torch.ones_like(boxes)),
            None,
            None,
            matched.sampled(),
        )

    def box_targets(self, matched: MatchedBatch) -> Tensor:
        """Return the regression targets (N, 4) of the positives, encoded or in px."""
        if self.reg_decoded_bbox:
            return matched.boxes
        encoded: Tensor = self.bbox_coder.encode(matched.priors, matched.boxes)
        return encoded
