"""Focal losses."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any

from torch import Tensor

from mmdet_ext.functional.classification.class_weights import (
    CLASS_WEIGHT_SCHEMES,
    count_labels,
    plain_numbers,
)
from mmdet_ext.functional.classification.focal import Alpha, check_alpha, check_gamma, focal_loss
from mmdet_ext.functional.classification.labels import without_weightless
from mmdet_ext.functional.numerics.reduction import Reduction
from mmdet_ext.losses.base import Elements
from mmdet_ext.losses.class_counts import (
    counts_of_batch,
    own_options,
    resolve_class_weights,
    scheme_options,
)
from mmdet_ext.losses.labels import LabelLoss
from mmdet_ext.registry import MODELS


@MODELS.register_module()
class FocalLoss(LabelLoss):
    """Focal loss over sigmoid or softmax, with class weights from counts; -1 is ignored.

    Formula and edge cases: :func:`mmdet_ext.functional.classification.focal.focal_loss`. Values
    and gradients equal those of mmdet's FocalLoss, with two exceptions. The label -1 costs nothing
    here; mmdet's loss raises on the CPU and treats it as background on a GPU. With ``activated``
    the logarithm of a probability continues as a straight line below 1e-12, for float16 below
    6.1e-5. A keyword that is not listed here raises a TypeError.

    Args:
        use_sigmoid: whether each column is a binary decision. Otherwise the columns are one
            softmax; a detection head then has one more column, the last, for the background.
        gamma: exponent of 1 - p, from 0; 0 gives cross entropy.
        alpha: weight of the foreground, in [0, 1]; the background weighs 1 less that number. None,
            or a negative number: all weigh 1. A list, an array or a tensor has one weight per
            class: of its positives with sigmoid, of its rows with softmax. One more number is the
            weight of the background (of all negatives with sigmoid), which otherwise is the mean of
            the others. ``dict(type=..., counts=...)`` makes that list, with 'inverse_log',
            'inverse_frequency' or 'effective_number', from the number of examples of each class:
            a list, the file that ``tools/data/class_counts.py`` writes, or 'batch', the labels of
            each call. Labels of weight 0 do not count there, as heads mark ignored samples so.
        reduction: 'none', 'mean' or 'sum'.
        loss_weight: factor on the result.
        activated: whether predictions are probabilities.
        avg_non_ignore: whether a mean without ``avg_factor`` counts only elements that are not
            ignored.
        loss_name: key of the loss in what a decode head returns, which must contain 'loss'. None:
            'loss_focal'.
        class_weight: one more factor on the loss of each column, positives and negatives alike;
            with softmax on that of each label. A list of numbers from 0, an array or a tensor; or
            a dict with ``counts``, as for ``alpha``, but not 'batch'.

    Raises:
        ValueError: for a negative ``gamma``, an ``alpha`` above 1, with a negative weight or
            with an option of its scheme out of range, another ``reduction``, or a ``loss_name``
            without 'loss'.
        TypeError, FileNotFoundError: for ``counts`` that are neither a list nor a file.
    """

    def __init__(
        self,
        use_sigmoid: bool = True,
        gamma: float = 2.0,
        alpha: Any = 0.25,
        reduction: Reduction = 'mean',
        loss_weight: float = 1.0,
        activated: bool = False,
        avg_non_ignore: bool = False,
        loss_name: str | None = None,
        class_weight: Any = None,
    ) -> None:
        super().__init__(reduction, loss_weight, loss_name, avg_non_ignore)
        check_gamma(gamma)
        self.use_sigmoid = use_sigmoid
        self.gamma = gamma
        self.alpha = _resolved_alpha(alpha)
        self.activated = activated
        self.class_weight = resolve_class_weights(class_weight, 'class_weight')

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """Compute the focal loss of labels (N, ...), or with sigmoid of targets like ``pred``.

        Returns:
            Tensor: the shape of ``pred`` for sigmoid, (N, ...) for softmax.
        """
        alpha: Alpha
        if isinstance(self.alpha, dict):
            alpha = _batch_weights(self.alpha, pred, target)
        else:
            alpha = self.alpha
        return focal_loss(
            pred,
            target,
            self.use_sigmoid,
            self.gamma,
            alpha,
            self.activated,
            self.class_weight,
        )

    def elements(
        self, pred: Tensor, target: Tensor, weight: Tensor | None, reduction: Reduction
    ) -> Elements:
        """Compute the focal loss; with sigmoid ``weight`` may also be flat, (N * C,)."""
        if weight is not None and self.use_sigmoid and weight.shape == (pred.numel(),):
            weight = weight.reshape(pred.shape)
        if isinstance(self.alpha, dict):
            target = without_weightless(target, weight)
        return Elements(self.elementwise(pred, target), weight)


def _resolved_alpha(alpha: Any) -> float | list[float] | dict[str, Any] | None:
    """Return a number, a list of weights, or the options of a scheme for the labels of a call."""
    alpha = plain_numbers(alpha)
    if isinstance(alpha, Real):
        check_alpha(float(alpha))
        return float(alpha)
    if isinstance(alpha, Mapping) and counts_of_batch(alpha):
        options = scheme_options(alpha, 'alpha')
        # One class with one example: a wrong option is reported now, not in the first call.
        CLASS_WEIGHT_SCHEMES[options['type']]([1.0], **own_options(options))
        return options
    return resolve_class_weights(alpha, 'alpha')


def _batch_weights(options: dict[str, Any], pred: Tensor, target: Tensor) -> Tensor:
    """Compute one weight per column from the labels of this call."""
    if pred.dim() < 2:
        raise ValueError(
            f"alpha: counts='batch' counts the classes in dimension 1 of pred, which "
            f'{tuple(pred.shape)} has not. Give alpha as a number'
        )
    if target.dim() == pred.dim():
        counts = target.float().clamp(min=0).movedim(1, 0).flatten(1).sum(1)
    else:
        counts = count_labels(target, pred.shape[1])
    return CLASS_WEIGHT_SCHEMES[options['type']](counts, **own_options(options))
