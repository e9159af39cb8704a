"""TOOD's head, with the targets of a batch made at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mmdet.models.dense_heads import TOODHead as StockTOODHead
from mmengine.logging import MessageHub
from torch import Tensor

from mmdet_ext.detection.heads.dense.atss import ATSSHead
from mmdet_ext.detection.heads.dense.batch_targets import MatchedBatch, PictureTargets, pictures
from mmdet_ext.functional.assignment.geometry import Predictions
from mmdet_ext.registry import MODELS


@MODELS.register_module()
class TOODHead(StockTOODHead, ATSSHead):  # type: ignore[misc]
    """Stock's ``TOODHead``, with the targets of all pictures of a batch made at once.

    Options, weights and losses are stock's. Give it our `TaskAlignedAssigner` and, as
    ``initial_assigner``, our `ATSSAssigner`; in a phase with another assigner, or with another
    sampler, it goes stock's way (see `BatchTargets`).

    Our `ATSSHead` stands behind stock's head, which in its first epochs asks its parent for
    targets.
    """

    def get_targets(self, *args: Any, **kwargs: Any) -> Any:
        """Stock's, on targets that are made at once."""
        with self.targets_ready(*args, **kwargs):
            return super().get_targets(*args, **kwargs)

    def _get_targets_single(self, *args: Any, **kwargs: Any) -> PictureTargets:
        return self.next_targets(super()._get_targets_single, *args, **kwargs)

    def batch_targets(
        self, cls_scores: Tensor, bbox_preds: Tensor, *args: Any, **kwargs: Any
    ) -> Iterable[PictureTargets] | None:
        """ATSS's in the first epochs, then ``anchors, labels, their weights, boxes, alignment``.

        Args:
            cls_scores: (B, P, C) probabilities.
            bbox_preds: (B, P, 4) corners, px.
            *args: further arguments of stock's ``get_targets``.
            **kwargs: likewise.
        """
        if MessageHub.get_current_instance().get_info('epoch') < self.initial_epoch:
            return super().batch_targets(*args, **kwargs)
        assigner = self.alignment_assigner
        # Stock calls this assigner without levels, unlike the one of the first epochs.
        if getattr(assigner, 'needs_levels', False):
            return None
        matched = self.match_anchors(
            assigner,
            *args,
            predictions=Predictions(cls_scores.detach(), bbox_preds.detach()),
            alpha=self.alpha,
            beta=self.beta,
            **kwargs,
        )
        if matched is None:
            return None
        return pictures(
            matched.priors_of_pictures(),
            *matched.label_targets(self.num_classes, self.train_cfg['pos_weight']),
            matched.spread(matched.boxes),
            matched.spread(normalized_alignment(matched)),
        )


def normalized_alignment(matched: MatchedBatch) -> Tensor:
    r"""The alignment t, scaled so that each box's best prior gets the best overlap u of the box.

    \hat t = t / (max t + 1e-7) * max u, both maxima over the box's positives.

    Args:
        matched: with a metric, the alignment.

    Returns:
        Tensor: (N,) float32, for the priors that have a box.

    References:
        Feng et al., TOOD: Task-aligned One-stage Object Detection, 2021, section 3.2.2.
    """
    assignment, place = matched.assignment, matched.place
    if assignment.metric is None:
        raise ValueError(
            'TOODHead needs an assigner that gives an alignment, such as TaskAlignedAssigner'
        )
    box = place[0] * matched.geometry.gt_valid.shape[1] + matched.box_index

    def best_of_box(values: Tensor) -> Tensor:
        best = values.new_zeros(matched.geometry.gt_valid.numel())
        return best.scatter_reduce_(0, box, values, 'amax')[box]

    alignment, overlap = assignment.metric[place], assignment.overlap[place]
    scaled = alignment / (best_of_box(alignment) + 1e-7) * best_of_box(overlap)
    return scaled.float()
