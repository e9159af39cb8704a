"""Online hard example mining around another loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmdet_ext.functional.classification.mining import Samples, check_mining, ohem_loss, mining_samples
from mmdet_ext.functional.numerics.precision import promote_half
from mmdet_ext.functional.numerics.reduction import Reduction, check_reduction, weighted_reduce
from mmdet_ext.losses.base import ElementwiseLoss
from mmdet_ext.registry import MODELS


@MODELS.register_module()
class OHEMLoss(ElementwiseLoss):
    """Any classification loss over all positives and the hardest negatives of each picture.

    One of ``negatives_per_positive``, ``num_negatives`` and ``loss_threshold`` says which
    negatives are kept; with none, it is SSD's three a positive. Rule and edges:
    :func:`mmdet_ext.functional.classification.mining.hard_negative_mask`.

    Predictions (B, P, C) with labels (B, P) are mined picture by picture. A flat call (N, C), as
    anchor heads make it a level with all pictures one after the other, is one group, unless it
    names the pictures by ``image_index``. Labels below 0 and samples of weight 0 are never kept.
    A level without positives then gives nothing with ``negatives_per_positive`` alone: set
    ``min_negatives`` there.

    A mean divides by the head's avg_factor, or else by the number of positives (at least 1).
    Heads with a sampler of their own give the number of all samples as avg_factor.

    Args:
        loss: config of a classification loss that gives its elements for reduction 'none'. Its
            own ``reduction`` does not count, its ``loss_weight`` does.
        negatives_per_positive: negatives kept a positive, rounded down.
        num_negatives: negatives kept a picture.
        loss_threshold: negatives of at least this loss (summed over classes) are kept.
        min_negatives: negatives kept at least a picture, for ``negatives_per_positive`` and
            ``loss_threshold``.
        use_sigmoid: whether the columns are classes (the label C is background), or classes and
            background, the last column. Heads read it here, so that it must agree with ``loss``.
            RoI heads give softmax columns.
        reduction: 'none', 'mean' or 'sum'.
        loss_weight: factor on the result.

    Raises:
        ValueError: for options that contradict each other or stand out of range, for a
            ``use_sigmoid`` other than that of ``loss``, for a loss with columns of its own, and
            for predictions of more than three dimensions.
    """

    def __init__(
        self,
        loss: dict[str, Any],
        negatives_per_positive: float | None = None,
        num_negatives: int | None = None,
        loss_threshold: float | None = None,
        min_negatives: int = 0,
        use_sigmoid: bool = False,
        reduction: Reduction = 'mean',
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(reduction=reduction, loss_weight=loss_weight)
        check_mining(negatives_per_positive, num_negatives, loss_threshold, min_negatives)
        self.negatives_per_positive = negatives_per_positive
        self.num_negatives = num_negatives
        self.loss_threshold = loss_threshold
        self.min_negatives = min_negatives
        self.use_sigmoid = use_sigmoid
        self.loss: nn.Module = MODELS.build(loss)
        self._check_columns()

    def _check_columns(self) -> None:
        name = type(self.loss).__name__
        theirs = getattr(self.loss, 'use_sigmoid', self.use_sigmoid)
        if bool(theirs) != self.use_sigmoid:
            raise ValueError(
                f'{name} has use_sigmoid={bool(theirs)}, and OHEMLoss around it has '
                f'use_sigmoid={self.use_sigmoid}: heads and mining go by the latter. Write '
                f"dict(type='mmdet_ext.OHEMLoss', use_sigmoid={bool(theirs)}, "
                f"loss=dict(type='{name}', use_sigmoid={bool(theirs)}, ...))"
            )
        if self.custom_cls_channels and not self.use_sigmoid:
            raise ValueError(
                f'{name} has columns of its own (custom_cls_channels), so that its elements are '
                'not one row a sample. Mine a plain softmax or sigmoid loss'
            )

    def forward(  # type: ignore[override]
        self,
        pred: Tensor,
        target: Any,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: Reduction | None = None,
        *,
        image_index: Tensor | None = None,
    ) -> Tensor:
        """The weighted and reduced loss of what is kept.

        Args:
            pred: (B, P, C), or (N, C), logits; (N,) for a binary target (N,).
            target: labels of the shape of the samples; or dense, of the shape of ``pred``; or a
                tuple whose first member is one of these, where the loss takes more.
            weight: one a sample, or one an element. Samples are ranked by the weighted loss.
            avg_factor: what a mean divides by, instead of the number of positives.
            reduction_override: used instead of ``reduction`` where given.
            image_index: (N,), the picture of each sample of a flat call.

        Returns:
            Tensor: a scalar, or for 'none' what the wrapped loss gives, 0 where not kept.

        Raises:
            ReductionError, ValueError: as :func:`mmdet_ext.functional.numerics.reduction.weighted_reduce`;
                if targets or ``image_index`` do not fit.
            TypeError: for any other keyword.
        """
        reduction = self.reduction if reduction_override is None else reduction_override
        check_reduction(reduction)
        samples, each = self._wrapped(pred, target)
        dims = samples.positive_mask.dim()
        by_sample = weight is None or weight.dim() <= dims
        if reduction != 'none' and by_sample and each.dim() > dims:
            # Classes first: all that follows is one number a sample.
            each = each.flatten(dims).sum(-1)
        if weight is not None:
            each = weighted_reduce(each, weight, reduction='none')
            counts = weight > 0 if by_sample else (weight > 0).flatten(dims).any(-1)
            counts = counts.reshape(counts.shape + (1,) * (dims - counts.dim()))
            samples = samples._replace(valid_mask=samples.valid_mask & counts)
        kept = self._mine(each, samples, image_index)
        if avg_factor is None and reduction == 'mean':
            positives = (samples.positive_mask & samples.valid_mask).sum()
            return self.loss_weight * kept.sum() / positives.clamp(min=1)
        return self.loss_weight * weighted_reduce(kept, None, avg_factor, reduction)

    def elementwise(self, pred: Tensor, target: Any, image_index: Tensor | None = None) -> Tensor:
        """The wrapped loss, 0 where a sample is not kept."""
        samples, each = self._wrapped(pred, target)
        return self._mine(each, samples, image_index)

    def _wrapped(self, pred: Tensor, target: Any) -> tuple[Samples, Tensor]:
        """The samples, and the wrapped loss of each element, whatever dimensions lead."""
        if pred.dim() > 3:
            raise ValueError(
                f'pred must be (N, C) or (B, P, C), one row a sample, got {tuple(pred.shape)}: '
                'permute maps (B, C, H, W), and their targets, to (B, H * W, C)'
            )
        (pred,) = promote_half(pred)
        labels, *more = target if isinstance(target, tuple) else (target,)
        ignored = getattr(self.loss, 'ignore_index', None)
        samples = mining_samples(pred, labels, self.use_sigmoid, ignored)
        shape = samples.positive_mask.shape
        last = len(shape) - 1
        parts = [
            part.flatten(0, last)
            for part in (*_promote_floating(samples.target), *_promote_floating(*more))
        ]
        each: Tensor = self.loss(
            pred.flatten(0, last),
            tuple(parts) if isinstance(target, tuple) else parts[0],
            reduction_override='none',
        )
        if each.shape[:1] != (shape.numel(),):
            raise ValueError(
                f'{type(self.loss).__name__} gave a loss of shape {tuple(each.shape)} for '
                f'{shape.numel()} samples: only a loss that gives one value or row a sample for '
                "reduction_override='none' can be mined"
            )
        return samples, each.unflatten(0, shape)

    def _mine(self, each: Tensor, samples: Samples, image_index: Tensor | None) -> Tensor:
        return ohem_loss(
            each,
            samples.positive_mask,
            samples.valid_mask,
            image_index,
            negatives_per_positive=self.negatives_per_positive,
            num_negatives=self.num_negatives,
            loss_threshold=self.loss_threshold,
            min_negatives=self.min_negatives,
        )

    # Heads ask a loss for these; the wrapped loss answers.
    @property
    def custom_cls_channels(self) -> bool:
        """Whether the wrapped loss says how many columns there are."""
        return bool(getattr(self.loss, 'custom_cls_channels', False))

    @property
    def custom_activation(self) -> bool:
        """Whether the wrapped loss makes scores of the columns."""
        return bool(getattr(self.loss, 'custom_activation', False))

    @property
    def custom_accuracy(self) -> bool:
        """Whether the wrapped loss measures the accuracy."""
        return bool(getattr(self.loss, 'custom_accuracy', False))

    def get_cls_channels(self, num_classes: int) -> int:
        """Columns for that many classes, by the wrapped loss."""
        columns: int = self.loss.get_cls_channels(num_classes)  # type: ignore[operator]
        return columns

    def get_activation(self, cls_score: Tensor) -> Tensor:
        """Scores of the columns, by the wrapped loss."""
        scores: Tensor = self.loss.get_activation(cls_score)  # type: ignore[operator]
        return scores

    def get_accuracy(self, cls_score: Tensor, labels: Tensor) -> Any:
        """Accuracy, by the wrapped loss."""
        return self.loss.get_accuracy(cls_score, labels)  # type: ignore[operator]


def _promote_floating(*parts: Tensor) -> list[Tensor]:
    """Floating targets in at least float32; labels as they are."""
    return [promote_half(part)[0] if torch.is_floating_point(part) else part for part in parts]
