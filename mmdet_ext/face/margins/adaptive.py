"""Margins that depend on the sample or on the progress of training, and other competitions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from mmengine.dist import all_reduce
from torch import Tensor, nn

from mmdet_ext.face.margins.base import Margin
from mmdet_ext.face.margins.class_margins import ClassMargins, MarginOption
from mmdet_ext.functional.embedding.chunked_competition import Kind, OtherScores
from mmdet_ext.functional.embedding.margin_loss import unified_cross_entropy_loss
from mmdet_ext.functional.embedding.margins import (
    adaptive_margin,
    additive_angular_margin,
    additive_cosine_margin,
    clipped_multiplicative_margin,
    magnitude_margin,
    multiplicative_angular_margin,
    turned_cosine,
)
from mmdet_ext.functional.numerics.checks import check_one_of, check_that, is_pair
from mmdet_ext.functional.numerics.precision import promote_half
from mmdet_ext.registry import MARGINS


@MARGINS.register_module()
class AdaFace(Margin):
    """Margin that depends on the image quality q: z_y = s (cos(t_y - m q) - (m q + m)).

    The length |x| of the feature indicates the quality of its image::

        q = h (|x| - mean) / deviation    clamped to -1 and 1

    ``mean`` and ``deviation`` of the lengths are running means over batches, equal on all ranks.

    Args:
        m: from 0 to below pi / 2, 0.4 in the paper, used both in radians and as a cosine; one
            number, a list with one per class, or computed from counts (`ClassMargins`).
        h: spread of q, at least 0.
        momentum: weight of a new batch in the running means, from 0 to 1.

    References:
        Kim et al., AdaFace: Quality Adaptive Margin for Face Recognition, CVPR 2022, eqs. 13-16.
    """

    mean: Tensor
    deviation: Tensor

    limits = {'h': (0, math.inf), 'momentum': (0, 1)}

    def __init__(self, m: MarginOption = 0.4, h: float = 0.333, momentum: float = 0.01) -> None:
        super().__init__()
        self.check(h=h, momentum=momentum)
        self.m, self.h, self.momentum = ClassMargins('m', m, (0, math.pi / 2)), h, momentum
        self.register_buffer('mean', torch.tensor(20.0))
        self.register_buffer('deviation', torch.tensor(100.0))

    def observe(self, cosine: Tensor, norm: Tensor) -> None:
        """Move the running mean and deviation of the lengths."""
        # One sample has no deviation: the running one stays.
        lengths = norm.clamp(0.001, 100)
        deviation = lengths.std() if len(lengths) > 1 else self.deviation
        _move(self.mean, lengths.mean(), self.momentum)
        _move(self.deviation, deviation, self.momentum)

    def cosine_margin(self, cosine: Tensor, norm: Tensor, labels: Tensor) -> Tensor:
        """Return the score with the margin of each sample's quality."""
        # The length only grades the image. It gets no gradient from the margin.
        lengths = norm.detach().clamp(0.001, 100)
        quality = (self.h * (lengths - self.mean) / (self.deviation + 1e-3)).clamp(-1, 1)
        return adaptive_margin(cosine, quality, self.m(labels))


class _CurricularScores:
    """CurricularFace's rule: c (pace + c) for a cosine c above the own score with its margin."""

    def __init__(self, threshold: Tensor, pace: Tensor) -> None:
        self.threshold, self.pace = threshold[:, None], pace

    def score(self, similarity: Tensor) -> Tensor:
        """Return the rescored cosines as a new table."""
        hard = similarity * (similarity + self.pace)
        return torch.where(similarity > self.threshold, hard, similarity)

    def slope(self, similarity: Tensor) -> Tensor | None:
        """Return the derivative of the scores by the cosine."""
        return torch.where(similarity > self.threshold, 2 * similarity + self.pace, 1.0)


@MARGINS.register_module()
class CurricularFace(Margin):
    """ArcFace with more weight on hard other classes as training goes on.

    The own class scores z_y = s cos(t_y + m). A class j is hard for a sample if
    cos t_j > cos(t_y + m). It then scores s cos t_j (pace + cos t_j), where ``pace`` is the running
    mean of the cosines to the own centres, equal on all ranks.

    Args:
        m: radians, from 0 to below pi; one number, a list with one per class, or computed from
            counts (`ClassMargins`).
        momentum: weight of a new batch in the running mean, from 0 to 1.

    References:
        Huang et al., CurricularFace: Adaptive Curriculum Learning Loss for Deep Face Recognition,
        CVPR 2020, eqs. 5-8.
    """

    limits = {'momentum': (0, 1)}
    pace: Tensor

    def __init__(self, m: MarginOption = 0.5, momentum: float = 0.01) -> None:
        super().__init__()
        self.check(momentum=momentum)
        self.m, self.momentum = ClassMargins('m', m, (0, math.pi)), momentum
        self.register_buffer('pace', torch.zeros(()))

    def others(self, labels: Tensor) -> Callable[[Tensor], OtherScores]:
        """Return a function that moves the pace, in training, and rescores hard classes."""

        def rescore(cosine: Tensor) -> OtherScores:
            if self.training:
                _move(self.pace, cosine.mean(), self.momentum)
            turned = turned_cosine(cosine, self.m(labels))
            # A copy, because the pace may move again before the backward pass of this batch.
            return _CurricularScores(turned, self.pace.clone())

        return rescore

    def cosine_margin(self, cosine: Tensor, norm: Tensor, labels: Tensor) -> Tensor:
        """Return ArcFace's score."""
        return additive_angular_margin(cosine, self.m(labels))


@MARGINS.register_module()
class MagFace(Margin):
    """Angular margin that grows with the length of the feature: z_y = s cos(t_y + m(a)).

    Good images have long features. They get a larger margin, and a penalty g(a), added to the
    loss, asks for length::

        a    = |x|, clamped to l and u
        m(a) = m_low + (a - l) (m_high - m_low) / (u - l)
        g(a) = 1 / a + a / u^2

    The bounds l and u must suit the embedding. Behind a batch norm over D channels, lengths are
    about sqrt(D).

    Args:
        norms: l and u, 0 < l < u.
        margins: m_low and m_high, radians, from 0 to below pi.
        penalty_weight: factor on the mean of g, lambda_g in the paper, at least 0.
        easy_margin: as in `ArcFace`.

    References:
        Meng et al., MagFace: A Universal Representation for Face Recognition and Quality
        Assessment, CVPR 2021, eq. 3.
    """

    limits = {'penalty_weight': (0, math.inf)}

    def __init__(
        self,
        norms: tuple[float, float] = (10.0, 110.0),
        margins: tuple[float, float] = (0.45, 0.8),
        penalty_weight: float = 35.0,
        easy_margin: bool = False,
    ) -> None:
        super().__init__()
        self.check(penalty_weight=penalty_weight)
        holds = is_pair(norms) and 0 < norms[0] < norms[1] < math.inf
        check_that(holds, 'norms', norms, 'two lengths, 0 < l < u')
        holds = is_pair(margins) and 0 <= margins[0] <= margins[1] < math.pi
        check_that(holds, 'margins', margins, 'two angles, 0 <= low <= high < pi')
        self.norms, self.margins = (norms[0], norms[1]), (margins[0], margins[1])
        self.penalty_weight, self.easy_margin = float(penalty_weight), easy_margin

    def cosine_margin(self, cosine: Tensor, norm: Tensor, labels: Tensor) -> Tensor:
        """Return ArcFace's score with the margin m(a) of each sample."""
        margin, _ = magnitude_margin(norm, self.norms, self.margins)
        return additive_angular_margin(cosine, margin, easy_margin=self.easy_margin)

    def penalty(self, norm: Tensor) -> Tensor | None:
        """Return ``penalty_weight`` g(a) of each sample."""
        return self.penalty_weight * magnitude_margin(norm, self.norms, self.margins)[1]


class _ShrunkAngles:
    """Rule of SphereFace-R v2: other classes score cos(t / m), with the gradient of cos t."""

    def __init__(self, margin: float) -> None:
        self.margin = margin

    def score(self, similarity: Tensor) -> Tensor:
        """Return cos(t / m) as a new table."""
        return torch.cos(similarity.clamp(-1, 1).acos_() / self.margin)

    def slope(self, similarity: Tensor) -> Tensor | None:
        """Return None, for the slope 1."""
        return None


@MARGINS.register_module()
class SphereFaceR(Margin):
    """SphereFace revived: a factor on the angle, on a fixed scale.

    The versions are::

        v0   z_y = s psi(t_y)                 psi as in SphereFace
        v1   z_y = s cos(min(m t_y, pi))
        v2   z_y = s cos t_y, z_j = s cos(t_j / m)

    Scores have the value of the margin and the gradient of the plain cosine (characteristic
    gradient detachment).

    Args:
        m: factor on the angle, any number from 1 to 16.
        version: 'v0', 'v1' or 'v2'.

    References:
        Liu et al., SphereFace Revived: Unifying Hyperspherical Face Recognition, TPAMI 2022,
        sections 3 and 4 (hard feature normalisation).
    """

    limits = {'m': (1, 16)}

    def __init__(self, m: float = 1.5, version: Literal['v0', 'v1', 'v2'] = 'v1') -> None:
        super().__init__()
        self.check(m=m)
        check_one_of('version', version, ('v0', 'v1', 'v2'))
        self.m, self.version = float(m), version

    def cosine_margin(self, cosine: Tensor, norm: Tensor, labels: Tensor) -> Tensor:
        """Return the score of the version, with the gradient of the cosine."""
        known = cosine.detach()
        if self.version == 'v2':
            return cosine
        form = {'v0': multiplicative_angular_margin, 'v1': clipped_multiplicative_margin}
        return form[self.version](known, self.m) + (cosine - known)

    def others(self, labels: Tensor) -> Callable[[Tensor], OtherScores] | None:
        """Return the rule that shrinks the angles of other classes in v2, None otherwise."""
        return (lambda cosine: _ShrunkAngles(self.m)) if self.version == 'v2' else None


@MARGINS.register_module()
class UniFace(Margin):
    """Comparison of each class with one learned threshold b instead of with the other classes.

    One similarity then separates all identities, as verification needs::

        L = log(1 + exp(-(s (cos t_y - m) - b))) + l sum_{j != y} log(1 + exp(s cos t_j - b))

    Args:
        m: subtracted from the own cosine; one number, a list with one per class, or computed from
            counts (`ClassMargins`).
        negative_weight: l, at least 0.
        bias: initial value of b; None for log(10 C) with C classes.

    References:
        Zhou et al., UniFace: Unified Cross-Entropy Loss for Deep Face Recognition, ICCV 2023.
    """

    kind: Kind = 'sigmoid'
    limits = {'negative_weight': (0, math.inf)}

    def __init__(
        self, m: MarginOption = 0.4, negative_weight: float = 1.0, bias: float | None = None
    ) -> None:
        super().__init__()
        self.check(negative_weight=negative_weight, bias=0 if bias is None else bias)
        self.m, self.negative_weight = ClassMargins('m', m), negative_weight
        self._start = bias
        self.bias = nn.Parameter(torch.zeros(()))

    def bind(self, num_classes: int) -> None:
        """Check the margins, and set the threshold to its initial value."""
        super().bind(num_classes)
        start = math.log(10 * num_classes) if self._start is None else self._start
        nn.init.constant_(self.bias, start)

    def cosine_margin(self, cosine: Tensor, norm: Tensor, labels: Tensor) -> Tensor:
        """Return CosFace's score."""
        return additive_cosine_margin(cosine, self.m(labels))

    def class_bias(self, num_classes: int) -> Tensor | None:
        """Return -b for each class."""
        return -self.bias.expand(num_classes)

    def loss(self, target: Tensor, others: Tensor) -> Tensor:
        """Return UniFace's loss of each sample, (N,)."""
        return unified_cross_entropy_loss(target, others, self.negative_weight)


def _move(buffer: Tensor, value: Tensor, momentum: float) -> None:
    """Move a running mean towards the value of a batch, averaged over all ranks.

    A batch without samples, or with features that overflowed, has no finite value, and would
    spoil the mean for good. Its rank contributes the present mean instead.
    """
    # The buffer may be in half precision or in float64.
    value, mean = promote_half(value.detach(), buffer)
    value = torch.where(value.isfinite(), value, mean)
    all_reduce(value, 'mean')
    buffer.copy_(mean.lerp(value, momentum))
