"""Pixels that the units of a map depend on, by the formula of the receptive field."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Field:
    """Pixels along one axis that the units of a map depend on.

    Unit i depends on the pixels ``low(i)`` to ``high(i)``, both of which rise with i. Without an
    upsampling all fields are equally wide, and a jump apart. Behind one, neighbours share their
    fields, so that only units a period apart have equal ones: there is a pixel per phase.

    Attributes:
        lows: First pixel of units 0 to p - 1, with p the period; below 0 where padding is seen.
        highs: Last pixel of these units.
        shift: Distance of the fields of units i and i + p, px.
        whole: Whether each unit sees the whole image.
    """

    lows: tuple[int, ...] = (0,)
    highs: tuple[int, ...] = (0,)
    shift: int = 1
    whole: bool = False

    @property
    def size(self) -> float:
        """Receptive field in px, of the units that have the widest; infinite for the image."""
        if self.whole:
            return math.inf
        return max(high - low for low, high in zip(self.lows, self.highs, strict=True)) + 1

    @property
    def jump(self) -> float:
        """Mean distance of neighbouring units in px: the strides over the upsamplings so far."""
        return self.shift / len(self.lows)

    def low(self, unit: int) -> int:
        """Return the first pixel of a unit."""
        turns, phase = divmod(unit, len(self.lows))
        return self.lows[phase] + turns * self.shift

    def high(self, unit: int) -> int:
        """Return the last pixel of a unit."""
        turns, phase = divmod(unit, len(self.lows))
        return self.highs[phase] + turns * self.shift

    def width(self, unit: int) -> float:
        """Return the receptive field of one unit in px."""
        return math.inf if self.whole else self.high(unit) - self.low(unit) + 1

    def window(self, kernel: int, stride: int, padding: int = 0, dilation: int = 1) -> Field:
        r"""Return the field behind a convolution or a pooling.

        .. math:: R_i = R_{i-1} + d_i (k_i - 1) \prod_{j < i} s_j

        with kernel :math:`k`, stride :math:`s` and dilation :math:`d`, where there is no upsampling
        before: unit i reaches from unit :math:`s i - p` of the map to :math:`s i - p + d (k - 1)`.

        >>> stem = Field().window(kernel=7, stride=2, padding=3)
        >>> stem.size, stem.window(kernel=3, stride=2, padding=1).size
        (7, 11)
        """
        first = -padding
        return self._at(
            lambda unit: (first + stride * unit, first + stride * unit + dilation * (kernel - 1)),
            stride,
        )

    def upsampled(self, factor: int) -> Field:
        r"""Return the field behind an upsampling by the nearest unit.

        Unit i repeats unit :math:`\lfloor i / f \rfloor`: the jump is divided by ``factor``, and
        the size stays.

        >>> fine = Field().window(3, 2, padding=1).upsampled(2)
        >>> fine.jump, fine.size, fine.window(3, 1, padding=1).size
        (1.0, 3, 5)
        """
        return self._at(lambda unit: (unit // factor, unit // factor), 1, factor)

    def transposed(self, kernel: int, stride: int, padding: int = 0) -> Field:
        r"""Return the field behind a transposed convolution.

        Unit j of the map adds to the units :math:`s j - p` to :math:`s j - p + k - 1`, so that unit
        i depends on :math:`\lceil (i + p - k + 1) / s \rceil` to
        :math:`\lfloor (i + p) / s \rfloor`. ``kernel`` is at least ``stride``.

        >>> Field().window(4, 2, padding=1).transposed(4, 2, padding=1).size
        6
        """
        return self._at(
            lambda unit: (-((kernel - 1 - unit - padding) // stride), (unit + padding) // stride),
            1,
            stride,
        )

    def meets(self, other: Field) -> bool:
        """Return whether two maps have units at equal distances, so that they can be joined."""
        return self.whole or other.whole or self.jump == other.jump

    def joined(self, other: Field) -> Field:
        """Return the field of a sum or a stack of two maps: the union over their paths.

        Raises:
            ValueError: If units of one map are further apart than those of the other.
        """
        if self.whole or other.whole:
            return Field(whole=True)
        if not self.meets(other):
            raise ValueError(f'maps of jumps {self.jump} and {other.jump} px have no common units')
        units = range(math.lcm(len(self.lows), len(other.lows)))
        return Field(
            tuple(min(self.low(unit), other.low(unit)) for unit in units),
            tuple(max(self.high(unit), other.high(unit)) for unit in units),
            round(self.jump * len(units)),
        )

    def pixels(self, unit: int, width: int) -> tuple[int, int]:
        """Return the first and the last pixel of a unit's field within an image.

        At a border these are the most that it can be: a dilated window may fall between pixels.

        >>> Field().window(3, 1, padding=1).pixels(unit=0, width=8)
        (0, 1)
        """
        if self.whole:
            return 0, width - 1
        return max(self.low(unit), 0), min(self.high(unit), width - 1)

    def _at(self, ends: Callable[[int], tuple[int, int]], step: int, parts: int = 1) -> Field:
        """Return the field of units that reach from one unit of this map to another.

        Args:
            ends: The first and the last unit of this map for a unit of the new one.
            step: Units of this map between ends of units that are ``parts`` apart.
            parts: Units of the new map that share a place of this one.
        """
        if self.whole:
            return self
        period = len(self.lows)
        turns = period // math.gcd(period, step)
        reached = [ends(unit) for unit in range(turns * parts)]
        return Field(
            tuple(self.low(first) for first, _ in reached),
            tuple(self.high(last) for _, last in reached),
            self.shift * turns * step // period,
        )
