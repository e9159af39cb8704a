"""Margin option: one number for all classes, one per class, or computed from class counts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmdet_ext.functional.classification.class_weights import plain_numbers
from mmdet_ext.functional.numerics.checks import check_number, is_real
from mmdet_ext.losses.class_counts import resolve_counts

#: One number, one per class, or ``dict(counts=..., high=..., low=..., power=...)``.
MarginOption = float | Sequence[float] | Mapping[str, Any]


class ClassMargins(nn.Module):
    """Margin of the class of each sample.

    Margins computed from counts n_c are larger for rare classes::

        m_c = low + (high - low) (r_c - min r) / (max r - min r)    r_c = max(n_c, 1)^power

    All classes get ``high`` where all are equally frequent.

    Args:
        name: name of the option in messages.
        option: m, one number for all classes; a list, an array or a tensor with one per class; or
            a dict with ``counts`` (a list, or the json file of ``tools/data/class_counts.py``),
            ``high`` (default 0.5), ``low`` (default 0.05) and ``power`` (default -0.25).
        bounds: smallest margin, and the bound that margins must stay below.

    Raises:
        TypeError, ValueError: for any other option, or a margin outside the bounds.
    """

    values: Tensor | None

    def __init__(
        self, name: str, option: MarginOption, bounds: tuple[float, float] = (-math.inf, math.inf)
    ) -> None:
        super().__init__()
        self.name, self.bounds = name, bounds
        self.number: float | None = None
        values: list[Any] | None = None
        given = plain_numbers(option)
        if isinstance(given, Mapping):
            values = _from_counts(name, dict(given))
        elif is_real(given):
            self.number = self._checked(given)
        elif isinstance(given, Sequence) and not isinstance(given, str):
            values = list(given)
        else:
            raise TypeError(
                f'{name} must be a number, a list of one per class, or dict(counts=...), got '
                f'{option!r}'
            )
        table = None
        if values is not None:
            table = torch.tensor([self._checked(value) for value in values])
        self.register_buffer('values', table, persistent=False)

    def _checked(self, value: Any) -> float:
        """Return a margin as a float, after checking it."""
        if not is_real(value):
            raise TypeError(f'{self.name} must be numbers, got {value!r}')
        low, high = self.bounds
        wanted = f'from {low:g} to below {high:.4g}' if high < math.inf else 'finite'
        check_number(self.name, value, wanted, least=low, below=high, finite=True)
        return float(value)

    def bind(self, num_classes: int) -> None:
        """Check that there is one margin per class.

        Raises:
            ValueError: if the number of margins differs from ``num_classes``.
        """
        if self.values is not None and len(self.values) != num_classes:
            raise ValueError(
                f'{self.name} has margins (or counts) for {len(self.values)} classes, the head '
                f'has num_classes={num_classes}'
            )

    def set(self, value: float) -> None:
        """Set one margin for all classes."""
        self.number, self.values = self._checked(value), None

    def forward(self, labels: Tensor) -> float | Tensor:
        """Return the margins of the classes ``labels``, (N,), or the one number for all."""
        if self.values is None:
            assert self.number is not None
            return self.number
        return self.values[labels]

    def extra_repr(self) -> str:
        """Return the number, or that there is one per class, as printed with a model."""
        return f'{self.name}={self.number}' if self.values is None else f'{self.name} per class'


def _from_counts(name: str, option: dict[str, Any]) -> list[float]:
    """Compute the margin of each class from the dict of counts."""
    counts = option.pop('counts', None)
    high, low = option.pop('high', 0.5), option.pop('low', 0.05)
    power = option.pop('power', -0.25)
    if counts is None or option:
        raise ValueError(
            f'{name} takes dict(counts=..., high=0.5, low=0.05, power=-0.25), got '
            f'{f"unknown keys {sorted(option)}" if option else "no counts"}'
        )
    if not low <= high:
        raise ValueError(f'{name}: low must not be above high, got low={low!r}, high={high!r}')
    rarity = [max(count, 1) ** power for count in resolve_counts(counts)]
    least, most = min(rarity), max(rarity)
    if least == most:
        return [float(high)] * len(rarity)
    return [low + (high - low) * (value - least) / (most - least) for value in rarity]
