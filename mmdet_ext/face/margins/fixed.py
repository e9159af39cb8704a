"""Margins that depend on the angle to the own centre alone."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mmdet_ext.face.margins.base import Margin
from mmdet_ext.face.margins.class_margins import ClassMargins, MarginOption
from mmdet_ext.functional.embedding.margins import (
    additive_angular_margin,
    additive_cosine_margin,
    combined_margin,
    multiplicative_angular_margin,
)
from mmdet_ext.functional.numerics.checks import check_one_of, check_that
from mmdet_ext.registry import MARGINS


@MARGINS.register_module()
class Softmax(Margin):
    """Plain softmax classifier without margin or normalisation: z_j = w_j x + b_j.

    Args:
        bias: whether to learn the bias b, which starts at 0.
    """

    normalize_features = False
    normalize_weight = False

    def __init__(self, bias: bool = False) -> None:
        super().__init__()
        self.has_bias = bias

    def bind(self, num_classes: int) -> None:
        """Create the bias of each class."""
        if self.has_bias:
            self.bias = nn.Parameter(torch.zeros(num_classes))

    def cosine_margin(self, cosine: Tensor, norm: Tensor, labels: Tensor) -> Tensor:
        """Return the cosine unchanged."""
        return cosine

    def class_bias(self, num_classes: int) -> Tensor | None:
        """Return the learned bias, or None without one."""
        return self.bias if self.has_bias else None


@MARGINS.register_module()
class NormFace(Margin):
    """Softmax over scaled cosines without margin: z_j = s cos t_j.

    References:
        Wang et al., NormFace: L2 Hypersphere Embedding for Face Verification, ACM MM 2017, eq. 5.
    """

    def __init__(self) -> None:
        super().__init__()

    def cosine_margin(self, cosine: Tensor, norm: Tensor, labels: Tensor) -> Tensor:
        """Return the cosine unchanged."""
        return cosine


class _Annealed(Margin):
    """Margin psi mixed with the cosine by a falling lambda: (l cos t + psi(t)) / (1 + l)."""

    normalize_features = False
    limits = {
        'm': (1, 16),
        **dict.fromkeys(('lambda_max', 'lambda_min', 'gamma', 'power'), (0, math.inf)),
    }

    def __init__(
        self,
        m: int = 4,
        lambda_max: float = 1000.0,
        lambda_min: float = 5.0,
        gamma: float = 0.12,
        power: float = 1.0,
    ) -> None:
        super().__init__()
        self.check(m=m, lambda_max=lambda_max, lambda_min=lambda_min, gamma=gamma, power=power)
        self.m, self.power, self.gamma = int(m), power, gamma
        self.lambda_max, self.lambda_min = lambda_max, lambda_min
        self.register_buffer('step', torch.zeros((), dtype=torch.int64))
        self.step: Tensor

    def check(self, **numbers: Any) -> None:
        """Check the limits, that m is a whole number, and that lambda falls."""
        super().check(**numbers)
        m = numbers.get('m', 1)
        check_that(m == int(m), 'm', m, 'a whole number', 'it multiplies the angle')
        ends = {'lambda_max': math.inf, 'lambda_min': 0.0}
        high, low = (numbers.get(end, getattr(self, end, none)) for end, none in ends.items())
        if low > high:
            raise ValueError(
                f'lambda_min={low!r} of {type(self).__name__} is above lambda_max={high!r}: '
                'lambda falls from lambda_max to lambda_min'
            )

    def observe(self, cosine: Tensor, norm: Tensor) -> None:
        """Count a step of training."""
        self.step += 1

    def annealing(self) -> Tensor:
        """Return the present lambda."""
        falling = self.lambda_max * (1 + self.gamma * self.step.float()) ** -self.power
        return falling.clamp(min=self.lambda_min)

    def cosine_margin(self, cosine: Tensor, norm: Tensor, labels: Tensor) -> Tensor:
        """Return (l cos t + psi(t)) / (1 + l)."""
        moved = multiplicative_angular_margin(cosine, int(self.m))
        return cosine + (moved - cosine) / (1 + self.annealing())


@MARGINS.register_module()
class SphereFace(_Annealed):
    """A-Softmax with normalised centres: z_y = |x| psi(t_y).

    psi multiplies the angle by m. Training starts as plain softmax over normalised centres, and
    moves to psi as lambda falls::

        l = max(lambda_min, lambda_max (1 + gamma step)^-power)
        z_y = |x| (l cos t + psi(t)) / (1 + l)

    Args:
        m: factor on the angle, a whole number from 1 to 16, 1 to 4 in the paper; 1 is no margin.
        lambda_max: l at the first step. With lambda_max = lambda_min = 0, psi holds from the start.
        lambda_min: smallest l, at most lambda_max.
        gamma: speed of the fall, at least 0.
        power: exponent of the fall, at least 0.

    Checkpoints keep the number of steps.

    References:
        Liu et al., SphereFace: Deep Hypersphere Embedding for Face Recognition, CVPR 2017, eq. 7.
    """


@MARGINS.register_module()
class LSoftmax(_Annealed):
    """Large-margin softmax without normalisation: z_y = |w_y| |x| psi(t_y).

    Args:
        m: factor on the angle, a whole number from 1 to 16; 1 is no margin.
        lambda_max: as in `SphereFace`, like the three options below.
        lambda_min: as in `SphereFace`.
        gamma: as in `SphereFace`.
        power: as in `SphereFace`.

    References:
        Liu et al., Large-Margin Softmax Loss for Convolutional Neural Networks, ICML 2016, eq. 4.
    """

    normalize_weight = False

    def __init__(
        self,
        m: int = 2,
        lambda_max: float = 1000.0,
        lambda_min: float = 5.0,
        gamma: float = 0.12,
        power: float = 1.0,
    ) -> None:
        super().__init__(m, lambda_max, lambda_min, gamma, power)


@MARGINS.register_module()
class CosFace(Margin):
    """Additive cosine margin: z_y = s (cos t_y - m).

    Args:
        m: one number, a list with one per class, or computed from counts (`ClassMargins`).

    References:
        Wang et al., CosFace, CVPR 2018, eq. 4.
    """

    def __init__(self, m: MarginOption = 0.35) -> None:
        super().__init__()
        self.m = ClassMargins('m', m)

    def cosine_margin(self, cosine: Tensor, norm: Tensor, labels: Tensor) -> Tensor:
        """Return cos t - m."""
        return additive_cosine_margin(cosine, self.m(labels))


@MARGINS.register_module()
class ArcFace(Margin):
    """Additive angular margin: z_y = s cos(t_y + m).

    For angles t_y above pi - m the score is s (cos t_y - m sin m). From m = 2.33 on, the score
    steps up there.

    Args:
        m: radians, from 0 to below pi; one number, a list with one per class, or computed from
            counts (`ClassMargins`).
        easy_margin: leave angles above a right angle unchanged.
        gradient: 'analytic', or 'straight_through' for InsightFace's, which takes the slope as 1.

    References:
        Deng et al., ArcFace, CVPR 2019, eq. 3.
    """

    def __init__(
        self,
        m: MarginOption = 0.5,
        easy_margin: bool = False,
        gradient: Literal['analytic', 'straight_through'] = 'analytic',
    ) -> None:
        super().__init__()
        check_one_of('gradient', gradient, ('analytic', 'straight_through'))
        self.m = ClassMargins('m', m, (0, math.pi))
        self.easy_margin = easy_margin
        self.straight_through = gradient == 'straight_through'

    def cosine_margin(self, cosine: Tensor, norm: Tensor, labels: Tensor) -> Tensor:
        """Return cos(t + m), or its continuation beyond pi."""
        return additive_angular_margin(
            cosine,
            self.m(labels),
            easy_margin=self.easy_margin,
            straight_through=self.straight_through,
        )


@MARGINS.register_module()
class CombinedMargin(Margin):
    """Three margins at once: z_y = s (cos(m1 t_y + m2) - m3).

    (m1, m2, m3) = (1, m, 0) is ArcFace, (1, 0, m) is CosFace, and (m, 0, 0) is psi of SphereFace
    on a fixed scale. Where the angle passes pi, the score follows ArcFace for m1 = 1 and psi for
    other m1, so that it jumps as m1 leaves 1.

    Args:
        m1: factor on the angle, from 1 to 16.
        m2: added to the angle, in radians, from 0 to below pi; one number, a list with one per
            class, or computed from counts.
        m3: subtracted from the cosine; one number, a list with one per class, or computed from
            counts.

    References:
        Deng et al., ArcFace, CVPR 2019, eq. 4.
    """

    limits = {'m1': (1, 16)}

    def __init__(self, m1: float = 1.0, m2: MarginOption = 0.3, m3: MarginOption = 0.2) -> None:
        super().__init__()
        self.check(m1=m1)
        self.m1 = float(m1)
        self.m2 = ClassMargins('m2', m2, (0, math.pi))
        self.m3 = ClassMargins('m3', m3)

    def cosine_margin(self, cosine: Tensor, norm: Tensor, labels: Tensor) -> Tensor:
        """Return cos(m1 t + m2) - m3, or its continuation beyond pi."""
        return combined_margin(cosine, self.m1, self.m2(labels), self.m3(labels))
