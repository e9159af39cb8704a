"""Head of TOOD that computes the targets of a batch at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from mmdet.models.dense_heads import TOODHead as MMDetTOODHead
from mmengine.logging import MessageHub
from torch import Tensor

from mmdet_ext.detection.heads.dense.atss import ATSSHead
from mmdet_ext.detection.heads.dense.batch_targets import ImageTargets, per_image
from mmdet_ext.detection.heads.dense.fitting import check_fits, check_level_count
from mmdet_ext.detection.heads.dense.matched_batch import MatchedBatch
from mmdet_ext.functional.assignment.assignment import Assignment
from mmdet_ext.functional.assignment.geometry import Predictions, Priors
from mmdet_ext.registry import MODELS


@MODELS.register_module()
class TOODHead(MMDetTOODHead, ATSSHead):  # type: ignore[misc]
    """Drop-in replacement of mmdet's ``TOODHead`` that computes the targets of a batch at once.

    Options, weights and losses are mmdet's. Use it with our `TaskAlignedAssigner` and, as
    ``initial_assigner``, our `ATSSAssigner`, or any others of ours. The targets of the scores
    follow from the alignment s^alpha u^beta of each positive; for an assigner that gives none, the
    head computes it. In a phase with an assigner of mmdet, or with a sampler that draws, mmdet's
    code computes the targets (see `BatchTargets`).

    Our `ATSSHead` follows mmdet's head in the order of base classes, because mmdet's head asks its
    parent for targets in its first epochs.
    """

    _predictions: Predictions | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # mmdet's head builds these after its parent, which checks its own.
        for name in ('initial_assigner', 'alignment_assigner'):
            check_fits(self, getattr(self, name, None))

    def forward(self, feats: Sequence[Tensor]) -> Any:
        """Run mmdet's ``forward``, which comes before that of our `ATSSHead`.

        Args:
            feats: feature maps (B, D, H, W), one per level.
        """
        check_level_count(self, feats)
        return super().forward(feats)

    def get_targets(self, *args: Any, **kwargs: Any) -> Any:
        """Run mmdet's ``get_targets`` on targets that were computed at once."""
        with self.targets_ready(*args, **kwargs):
            return super().get_targets(*args, **kwargs)

    def _get_targets_single(self, *args: Any, **kwargs: Any) -> ImageTargets:
        return self.next_targets(super()._get_targets_single, *args, **kwargs)

    def predicted(self, priors: Priors, used: tuple[str, ...] | None) -> Predictions | None:
        """Return the predictions that mmdet's head passes with its call for targets."""
        return self._predictions

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
        predictions = Predictions(boxes=bbox_preds.detach(), probabilities=cls_scores.detach())
        if MessageHub.get_current_instance().get_info('epoch') < self.initial_epoch:
            self._predictions = predictions
            try:
                return super().batch_targets(*args, **kwargs)
            finally:
                self._predictions = None
        matched = self.match_anchors(
            self.alignment_assigner,
            *args,
            predictions=predictions,
            alpha=self.alpha,
            beta=self.beta,
            **kwargs,
        )
        if matched is None:
            return None
        matched = with_alignment(matched, predictions, self.alpha, self.beta)
        return per_image(
            matched.priors_per_image(),
            *matched.label_targets(self.num_classes, self.train_cfg['pos_weight']),
            matched.spread(matched.boxes),
            matched.spread(normalized_alignment(matched)),
        )


def with_alignment(
    matched: MatchedBatch, predictions: Predictions, alpha: float, beta: float
) -> MatchedBatch:
    r"""Add the alignment of the positives, s^\alpha u^\beta, where the assigner gave none.

    s is the probability that a prior predicts for the label of its ground truth, u the IoU of its
    predicted box.

    Args:
        matched: a matched batch.
        predictions: boxes and probabilities.
        alpha: exponent of the probability.
        beta: exponent of the IoU.

    Returns:
        MatchedBatch: with a metric, and with these IoUs as its overlaps; the same where it has a
        metric.

    Raises:
        ValueError: if a label is not among the classes.
    """
    if matched.assignment.metric is not None:
        return matched
    matched.geometry.check_ground_truth(predictions.num_classes)
    image, prior = matched.place
    score = predictions.as_probabilities()[image, prior, matched.labels].float()
    overlap = matched.overlap_of(predictions.as_boxes())
    assignment = Assignment(
        matched.assignment.gt_index,
        matched.spread(overlap),
        matched.spread(score**alpha * overlap**beta),
    )
    return MatchedBatch(matched.geometry, assignment)


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
