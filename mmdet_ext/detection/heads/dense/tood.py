"""Head of TOOD that computes the targets of a batch at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mmdet.models.dense_heads import TOODHead as MMDetTOODHead
from mmengine.logging import MessageHub
from torch import Tensor

from mmdet_ext.detection.heads.dense.atss import ATSSHead
from mmdet_ext.detection.heads.dense.batch_targets import ImageTargets, MatchedBatch, per_image
from mmdet_ext.functional.assignment.geometry import Predictions
from mmdet_ext.registry import MODELS


@MODELS.register_module()
class TOODHead(MMDetTOODHead, ATSSHead):  # type: ignore[misc]
    """Drop-in replacement of mmdet's ``TOODHead`` that computes the targets of a batch at once.

    Options, weights and losses are mmdet's. Use it with our `TaskAlignedAssigner` and, as
    ``initial_assigner``, our `ATSSAssigner`. In a phase with an assigner of mmdet, or with a
    sampler that draws, mmdet's code computes the targets (see `BatchTargets`).

    Our `ATSSHead` follows mmdet's head in the order of base classes, because mmdet's head asks its
    parent for targets in its first epochs.
    """

    def get_targets(self, *args: Any, **kwargs: Any) -> Any:
        """Run mmdet's ``get_targets`` on targets that were computed at once."""
        with self.targets_ready(*args, **kwargs):
            return super().get_targets(*args, **kwargs)

    def _get_targets_single(self, *args: Any, **kwargs: Any) -> ImageTargets:
        return self.next_targets(super()._get_targets_single, *args, **kwargs)

    def batch_targets(
        self, cls_scores: Tensor, bbox_preds: Tensor, *args: Any, **kwargs: Any
    ) -> Iterable[ImageTargets] | None:
        """Compute ``anchors, labels, their weights, boxes, alignment`` of each image.

        In the first ``initial_epoch`` epochs the targets are those of `ATSSHead`.

        Args:
            cls_scores: probabilities (B, P, C).
            bbox_preds: predicted boxes (B, P, 4), corners, px.
            *args: further arguments of mmdet's ``get_targets``.
            **kwargs: further keyword arguments of mmdet's ``get_targets``.
        """
        if MessageHub.get_current_instance().get_info('epoch') < self.initial_epoch:
            return super().batch_targets(*args, **kwargs)
        assigner = self.alignment_assigner
        # mmdet calls this assigner without levels, unlike the one of the first epochs.
        if getattr(assigner, 'needs_levels', False):
            return None
        matched = self.match_anchors(
            assigner,
            *args,
            predictions=Predictions(boxes=bbox_preds.detach(), probabilities=cls_scores.detach()),
            alpha=self.alpha,
            beta=self.beta,
            **kwargs,
        )
        if matched is None:
            return None
        return per_image(
            matched.priors_per_image(),
            *matched.label_targets(self.num_classes, self.train_cfg['pos_weight']),
            matched.spread(matched.boxes),
            matched.spread(normalized_alignment(matched)),
        )


def normalized_alignment(matched: MatchedBatch) -> Tensor:
    r"""Scale alignments so that the best positive of a ground truth gets its best overlap.

    \hat t = t / (max t + 1e-7) * max u, where t is the alignment (``matched.assignment.metric``)
    and u the overlap (``matched.assignment.overlap``) of a positive. Both maxima are taken over
    the positives of the same ground truth.

    Args:
        matched: a matched batch whose assignment has a metric.

    Returns:
        Tensor: (N,) float32, one per positive.

    Raises:
        ValueError: if the assignment has no metric.

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
