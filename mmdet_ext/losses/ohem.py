"""Online hard example mining around another loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmdet_ext.functional.classification.mining import (
    Samples,
    check_mining,
    mining_samples,
    ohem_loss,
)
from mmdet_ext.functional.numerics.precision import promote_half
from mmdet_ext.functional.numerics.reduction import Reduction, weighted_reduce
from mmdet_ext.losses.base import Elements, ElementwiseLoss
from mmdet_ext.registry import MODELS


@MODELS.register_module()
class OHEMLoss(ElementwiseLoss):
    """Classification loss over all positives and only the hardest negatives of each image.

    One of ``negatives_per_positive``, ``num_negatives`` and ``loss_threshold`` selects the
    negatives that are kept; without any, there are three per positive, as in SSD. Rule and edge
    cases: :func:`mmdet_ext.functional.classification.mining.hard_negative_mask`.

    Predictions (B, P, C) with labels (B, P) are mined for each image. A flat call (N, C), which
    anchor heads make for each level of all images together, is one group, unless it names the
    images by ``image_index``. Labels below 0 and samples of weight 0 are never kept. A level
    without positives gives no loss with ``negatives_per_positive`` alone: set ``min_negatives``
    there.

    A mean is divided by the head's avg_factor, or else by the number of positives (at least 1).
    Heads with a sampler of their own give the number of all samples as avg_factor.

    Args:
        loss: config of a classification loss that returns its elements for reduction 'none'. Its
            own ``reduction`` is not used, its ``loss_weight`` is.
        negatives_per_positive: negatives per positive, rounded down to a whole number per image.
        num_negatives: negatives per image.
        loss_threshold: least loss (summed over classes) of the negatives that are kept.
        min_negatives: least number of negatives per image, for ``negatives_per_positive`` and
            ``loss_threshold``.
        use_sigmoid: whether the columns are classes (the label C is background). Otherwise they
            are classes and background, the last column, as RoI heads have them. Heads read it
            from this loss, so that it must equal that of ``loss``.
        reduction: 'none', 'mean' or 'sum'.
        loss_weight: factor on the result.

    Raises:
        ValueError: for options that contradict each other or are out of range, for a
            ``use_sigmoid`` other than that of ``loss``, for a loss with columns of its own, and
            for predictions of more than three dimensions.
    """

    no_label_maps = 'it mines the negatives of detection, where OHEMPixelLoss mines pixels'

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
        """Raise ValueError unless the wrapped loss has the columns that ``use_sigmoid`` says."""
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
                'not one row per sample. Mine a plain softmax or sigmoid loss'
            )

    def elements(
        self,
        pred: Tensor,
        target: Any,
        weight: Tensor | None,
        reduction: Reduction,
        image_index: Tensor | None = None,
    ) -> Elements:
        """Compute the weighted loss of the samples that are kept.

        Args:
            pred: (B, P, C) or (N, C) logits; (N,) for a binary target (N,).
            target: labels of the shape of the samples; or dense, of the shape of ``pred``; or a
                tuple whose first member is one of these, where the wrapped loss takes more.
            weight: one weight per sample, or per element. Samples are ranked by the weighted loss.
            reduction: reduction that follows.
            image_index: (N,), the image of each sample of a flat call.

        Raises:
            ValueError: if targets or ``image_index`` do not fit.
        """
        samples, each = self._wrapped(pred, target)
        dims = samples.positive_mask.dim()
        by_sample = weight is None or weight.dim() <= dims
        if reduction != 'none' and by_sample and each.dim() > dims:
            # The sum over classes comes first: all that follows is one number per sample.
            each = each.flatten(dims).sum(-1)
        if weight is not None:
            each = weighted_reduce(each, weight, reduction='none')
            counts = weight > 0 if by_sample else (weight > 0).flatten(dims).any(-1)
            counts = counts.reshape(counts.shape + (1,) * (dims - counts.dim()))
            samples = samples._replace(valid_mask=samples.valid_mask & counts)
        positives = (samples.positive_mask & samples.valid_mask).sum()
        return Elements(self._mine(each, samples, image_index), None, positives.clamp(min=1))

    def elementwise(self, pred: Tensor, target: Any, image_index: Tensor | None = None) -> Tensor:
        """Compute the wrapped loss, with 0 for samples that are not kept."""
        samples, each = self._wrapped(pred, target)
        return self._mine(each, samples, image_index)

    def _wrapped(self, pred: Tensor, target: Any) -> tuple[Samples, Tensor]:
        """Return the samples, and the wrapped loss per element with the samples' dimensions."""
        if pred.dim() > 3:
            raise ValueError(
                f'pred must be (N, C) or (B, P, C), one row per sample, got {tuple(pred.shape)}: '
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
                f'{shape.numel()} samples: only a loss that gives one value or row per sample for '
                "reduction_override='none' can be mined"
            )
        return samples, each.unflatten(0, shape)

    def _mine(self, each: Tensor, samples: Samples, image_index: Tensor | None) -> Tensor:
        """Set the loss of samples that are not kept to 0."""
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

    # Heads read these of a loss; they are those of the wrapped loss.
    @property
    def custom_cls_channels(self) -> bool:
        """Return whether the wrapped loss determines the number of columns."""
        return bool(getattr(self.loss, 'custom_cls_channels', False))

    @property
    def custom_activation(self) -> bool:
        """Return whether the wrapped loss computes scores from the columns."""
        return bool(getattr(self.loss, 'custom_activation', False))

    @property
    def custom_accuracy(self) -> bool:
        """Return whether the wrapped loss computes the accuracy."""
        return bool(getattr(self.loss, 'custom_accuracy', False))

    def get_cls_channels(self, num_classes: int) -> int:
        """Return the wrapped loss's number of columns for ``num_classes`` classes."""
        columns: int = self.loss.get_cls_channels(num_classes)  # type: ignore[operator]
        return columns

    def get_activation(self, cls_score: Tensor) -> Tensor:
        """Return the wrapped loss's scores of the columns."""
        scores: Tensor = self.loss.get_activation(cls_score)  # type: ignore[operator]
        return scores

    def get_accuracy(self, cls_score: Tensor, labels: Tensor) -> Any:
        """Return the wrapped loss's accuracy."""
        return self.loss.get_accuracy(cls_score, labels)  # type: ignore[operator]


def _promote_floating(*parts: Tensor) -> list[Tensor]:
    """Return floating targets in at least float32, and labels unchanged."""
    return [promote_half(part)[0] if torch.is_floating_point(part) else part for part in parts]
