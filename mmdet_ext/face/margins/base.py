"""Base class of the margins that `MarginHead` takes."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor, nn

from mmdet_ext.face.margins.class_margins import ClassMargins, MarginOption
from mmdet_ext.functional.embedding.chunked_competition import Kind, OtherScores
from mmdet_ext.functional.embedding.margin_loss import margin_softmax_loss
from mmdet_ext.functional.numerics.checks import check_number, is_real
from mmdet_ext.registry import MARGINS


class Margin(nn.Module):
    """Rule that replaces the cosine between a sample and the centre of its own class.

    A subclass defines `cosine_margin`. It overrides the other methods where it differs from a
    softmax over scaled cosines.

    Attributes:
        normalize_features: whether scores are s cos t. If not, they are |x| cos t, and the scale
            of the head is not used.
        normalize_weight: whether centres w are normalised. If not, scores are |w| |x| cos t.
        kind: 'softmax' lets classes compete in one softmax, 'sigmoid' compares each with a
            threshold.
        limits: smallest and largest value of the options that are numbers, by name.
    """

    normalize_features = True
    normalize_weight = True
    kind: Kind = 'softmax'
    limits: ClassVar[dict[str, tuple[float, float]]] = {}

    def check(self, **numbers: Any) -> None:
        """Check the values of options by their names.

        Raises:
            TypeError: if a value is no number.
            ValueError: if a value is outside its limits, or not finite.
        """
        for name, value in numbers.items():
            if not is_real(value):
                several = hasattr(value, '__iter__') and not isinstance(value, str)
                hint = f'. {per_class_options()} take one per class' if several else ''
                raise TypeError(
                    f'{name} of {type(self).__name__} must be one number, got {value!r}{hint}'
                )
            low, high = self.limits.get(name, (-math.inf, math.inf))
            wanted = 'finite' if low == -math.inf else f'at least {low:.4g} and finite'
            if high < math.inf:
                wanted = f'from {low:.4g} to {high:.4g}'
            option = f'{name} of {type(self).__name__}'
            check_number(option, value, wanted, least=low, most=high, finite=True)

    def bind(self, num_classes: int) -> None:
        """Set the number of classes; the head calls this once, before training."""
        for value in self.children():
            if isinstance(value, ClassMargins):
                value.bind(num_classes)

    def observe(self, cosine: Tensor, norm: Tensor) -> None:
        """Update running statistics; the head calls this in training, before the scores.

        Args:
            cosine: cos t between feature and own centre, (N,).
            norm: length of the feature, (N,).
        """

    def cosine_margin(self, cosine: Tensor, norm: Tensor, labels: Tensor) -> Tensor:
        """Return the score that replaces the cosine of the own class, (N,).

        Args:
            cosine: cos t between feature and own centre, (N,).
            norm: length of the feature, (N,).
            labels: class of each sample, (N,).
        """
        raise NotImplementedError(f'{type(self).__name__} does not define cosine_margin')

    def others(self, labels: Tensor) -> Callable[[Tensor], OtherScores] | None:
        """Return a function of the own cosines (N,) that rescores other classes; None for cos t.

        Args:
            labels: class of each sample, (N,).
        """
        return None

    def class_bias(self, num_classes: int) -> Tensor | None:
        """Return a bias that is added to the score of each class, (C,), or None."""
        return None

    def penalty(self, norm: Tensor) -> Tensor | None:
        """Return the weighted penalty on the length ``norm`` (N,) of each feature, or None."""
        return None

    def loss(self, target: Tensor, others: Tensor) -> Tensor:
        """Return the loss of each sample, (N,).

        Args:
            target: score of the own class, (N,).
            others: combined weight of the other classes, (N,).
        """
        return margin_softmax_loss(target, others)

    def set_margin(self, name: str, value: float) -> None:
        """Set an option that is a number, as a schedule does in training.

        Raises:
            ValueError: if no option of that name is a number, or the value is outside its limits.
        """
        current = getattr(self, name, None)
        if isinstance(current, ClassMargins):
            current.set(value)
        elif _is_number(current):
            self.check(**{name: value})
            setattr(self, name, value)
        else:
            own = {**vars(self), **self._modules}
            numbers = [
                key
                for key, option in own.items()
                if not key.startswith('_')
                and (isinstance(option, ClassMargins) or _is_number(option))
            ]
            raise ValueError(
                f'{type(self).__name__} has no number named {name!r} to set; it has: '
                f'{", ".join(numbers) or "none"}'
            )


def per_class_options() -> str:
    """List the registered margins that take one value per class, for messages.

    Options with the type `MarginOption` do. They are named unless the only one is ``m``.
    """
    found = []
    for name, margin in sorted(MARGINS.module_dict.items()):
        options = [
            option.name
            for option in inspect.signature(margin).parameters.values()
            if option.annotation in ('MarginOption', MarginOption)
        ]
        if options:
            found.append(name if options == ['m'] else f'{name} ({", ".join(options)})')
    return ' and '.join([', '.join(found[:-1]), found[-1]])


def _is_number(value: object) -> bool:
    """Return whether an attribute is a Python number and no flag."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)
