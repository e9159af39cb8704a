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
from mmdet_ext.functional.classification.focal import Alpha, check_gamma, focal_loss
from mmdet_ext.functional.classification.labels import without_weightless
from mmdet_ext.functional.numerics.reduction import Reduction
from mmdet_ext.losses.base import ElementwiseLoss
from mmdet_ext.losses.class_counts import (
    counts_of_batch,
    own_options,
    resolve_class_weights,
    scheme_options,
)
from mmdet_ext.registry import MODELS


@MODELS.register_module()
class FocalLoss(ElementwiseLoss):
    """Focal loss over sigmoid or softmax, with class weights from counts; -1 is ignored.

    Formula and edges: :func:`mmdet_ext.functional.classification.focal.focal_loss`. Values and gradients are
    stock's, but for two things: label -1 costs nothing here, where stock raises on the CPU and
    takes it for background on a GPU; and with ``activated`` the logarithm of a probability goes
    on as a straight line below 1e-12, for float16 below 6.1e-5. A keyword that is not listed here
    raises a TypeError.

    Args:
        use_sigmoid: a yes or no for each column; otherwise softmax over the columns, of which a
            detection head has one more, the last, for the background.
        gamma: exponent of 1 - p, from 0; 0 leaves cross entropy.
        alpha: a number in [0, 1], what foreground weighs, where background weighs 1 less that; or
            None, or a negative number: all weigh 1. A list (or array, or tensor) weighs by class:
            positives of a class, or rows of it for softmax; one more number is the background's
            (for sigmoid: of all negatives), which else weighs the mean of the others.
            ``dict(type=..., counts=...)`` makes that list, with 'inverse_log',
            'inverse_frequency' or 'effective_number', from how often each class occurs: a list,
            the file that ``tools/data/class_counts.py`` writes, or 'batch', the labels of each call,
            but for those of weight 0, as heads mark what they leave out so.
        reduction: 'none', 'mean' or 'sum'.
        loss_weight: factor on the result.
        activated: predictions are probabilities.

    Raises:
        ValueError: for a negative ``gamma``, an ``alpha`` above 1, with a negative weight or
            with a scheme's option out of its range, or a ``reduction`` that is none of the three.
        TypeError, FileNotFoundError: for ``counts`` that are no list and no file.
    """

    def __init__(
        self,
        use_sigmoid: bool = True,
        gamma: float = 2.0,
        alpha: Any = 0.25,
        reduction: Reduction = 'mean',
        loss_weight: float = 1.0,
        activated: bool = False,
    ) -> None:
        super().__init__(reduction=reduction, loss_weight=loss_weight)
        check_gamma(gamma)
        self.use_sigmoid = use_sigmoid
        self.gamma = gamma
        self.alpha = _resolved_alpha(alpha)
        self.activated = activated

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """Focal loss of labels (N, ...) or, for sigmoid, of targets of the shape of ``pred``.

        Returns:
            Tensor: the shape of ``pred`` for sigmoid, (N, ...) for softmax.
        """
        alpha: Alpha
        if isinstance(self.alpha, dict):
            alpha = _batch_weights(self.alpha, pred, target)
        else:
            alpha = self.alpha
        return focal_loss(pred, target, self.use_sigmoid, self.gamma, alpha, self.activated)

    def forward(
        self,
        pred: Tensor,
        target: Any,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: Reduction | None = None,
    ) -> Tensor:
        """As ElementwiseLoss; for sigmoid ``weight`` may be flat, one an element, (N * C,)."""
        if weight is not None and self.use_sigmoid and weight.shape == (pred.numel(),):
            weight = weight.reshape(pred.shape)
        if isinstance(self.alpha, dict):
            target = without_weightless(target, weight)
        return super().forward(pred, target, weight, avg_factor, reduction_override)


def _resolved_alpha(alpha: Any) -> float | list[float] | dict[str, Any] | None:
    """A number as it is, a list of weights, or the options of a scheme for the labels of a call."""
    alpha = plain_numbers(alpha)
    if isinstance(alpha, Real):
        if not alpha <= 1:
            raise ValueError(
                f'alpha must be at most 1, got {alpha}: the background weighs 1 - alpha. Give a '
                'list to weigh classes'
            )
        return float(alpha)
    if isinstance(alpha, Mapping) and counts_of_batch(alpha):
        options = scheme_options(alpha, 'alpha')
        # Of one class that occurs once: a wrong option is told here, not in the first call.
        CLASS_WEIGHT_SCHEMES[options['type']]([1.0], **own_options(options))
        return options
    return resolve_class_weights(alpha, 'alpha')


def _batch_weights(options: dict[str, Any], pred: Tensor, target: Tensor) -> Tensor:
    """Weights by the labels of this call, one a column."""
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
