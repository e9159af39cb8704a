"""A margin that is one number for all classes, one a class, or from how often each occurs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmdet_ext.functional.classification.class_weights import plain_numbers
from mmdet_ext.functional.numerics.checks import is_real
from mmdet_ext.losses.class_counts import resolve_counts

#: A number, one a class, or ``dict(counts=..., high=..., low=..., power=...)``.
MarginOption = float | Sequence[float] | Mapping[str, Any]


class ClassMargins(nn.Module):
    """The margin of each sample's class.

    From counts, rare classes get more::

        m_c = low + (high - low) (r_c - min r) / (max r - min r)    r_c = max(n_c, 1)^power

    and ``high`` for all where all classes are equally frequent.

    Args:
        name: what messages call the option.
        option: m, a number; one a class, as a list, an array or a tensor; or a dict with
            ``counts`` (a list, or the json file of ``tools/data/class_counts.py``), ``high`` (default
            0.5), ``low`` (default 0.05) and ``power`` (default -0.25).
        bounds: from where to below where a margin may be.

    Raises:
        TypeError, ValueError: for anything else.
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
                f'{name} must be a number, a list of one a class, or dict(counts=...), got '
                f'{option!r}'
            )
        table = None
        if values is not None:
            table = torch.tensor([self._checked(value) for value in values])
        self.register_buffer('values', table, persistent=False)

    def _checked(self, value: Any) -> float:
        if not is_real(value):
            raise TypeError(f'{self.name} must be numbers, got {value!r}')
        low, high = self.bounds
        if not math.isfinite(value) or not low <= float(value) < high:
            span = f'from {low:g} to below {high:.4g}' if high < math.inf else 'finite'
            raise ValueError(f'{self.name} must be {span}, got {value!r}')
        return float(value)

    def bind(self, num_classes: int) -> None:
        """Check that there is a margin for each class.

        Raises:
            ValueError: if their number is another.
        """
        if self.values is not None and len(self.values) != num_classes:
            raise ValueError(
                f'{self.name} has margins (or counts) for {len(self.values)} classes, the head '
                f'has num_classes={num_classes}'
            )

    def set(self, value: float) -> None:
        """Make it one number for all."""
        self.number, self.values = self._checked(value), None

    def forward(self, labels: Tensor) -> float | Tensor:
        """The margins of the classes ``labels``, (N,), or the one number."""
        if self.values is None:
            assert self.number is not None
            return self.number
        return self.values[labels]

    def extra_repr(self) -> str:
        return f'{self.name}={self.number}' if self.values is None else f'{self.name} a class'


def _from_counts(name: str, option: dict[str, Any]) -> list[float]:
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
