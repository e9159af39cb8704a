"""Margins that go by the sample or by how far training is, and other forms of competition."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from mmengine.dist import all_reduce
from torch import Tensor, nn

from mmdet_ext.face.margins.class_margins import ClassMargins, MarginOption
from mmdet_ext.face.margins.fixed import Margin
from mmdet_ext.functional.embedding import margins as F
from mmdet_ext.functional.embedding.competition import Kind, OtherScores
from mmdet_ext.functional.embedding.margin_loss import unified_cross_entropy_loss
from mmdet_ext.functional.numerics.checks import is_pair
from mmdet_ext.functional.numerics.precision import promote_half
from mmdet_ext.registry import MARGINS


@MARGINS.register_module()
class AdaFace(Margin):
    """z_y = s (cos(t_y - m q) - (m q + m)): q says by the feature's length how good the picture is.

    q = h (|x| - mean) / deviation, held between -1 and 1; mean and deviation of lengths are kept
    as running means of batches, the same on all ranks.

    Args:
        m: in radians and as a cosine, from 0 to below pi / 2, 0.4 in the paper; number, list, or
            from counts (`ClassMargins`).
        h: how wide q spreads.
        momentum: weight of a new batch in the running means.

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
        # The deviation of one sample is none: such a batch says nothing of it.
        lengths = norm.clamp(0.001, 100)
        deviation = lengths.std() if len(lengths) > 1 else self.deviation
        _move(self.mean, lengths.mean(), self.momentum)
        _move(self.deviation, deviation, self.momentum)

    def cosine_margin(self, cosine: Tensor, norm: Tensor, labels: Tensor) -> Tensor:
        # The length only grades the picture: it gets no gradient from the margin.
        lengths = norm.detach().clamp(0.001, 100)
        quality = (self.h * (lengths - self.mean) / (self.deviation + 1e-3)).clamp(-1, 1)
        return F.adaptive_margin(cosine, quality, self.m(labels))


class _CurricularScores:
    """CurricularFace's: c (t + c) for others nearer than the own class with its margin."""

    def __init__(self, threshold: Tensor, pace: Tensor) -> None:
        self.threshold, self.pace = threshold[:, None], pace

    def score(self, similarity: Tensor) -> Tensor:
        hard = similarity * (similarity + self.pace)
        return torch.where(similarity > self.threshold, hard, similarity)

    def slope(self, similarity: Tensor) -> Tensor | None:
        return torch.where(similarity > self.threshold, 2 * similarity + self.pace, 1.0)


@MARGINS.register_module()
class CurricularFace(Margin):
    """ArcFace, with hard others weighed more as training goes on.

    z_y = s cos(t_y + m); others with cos t_j > cos(t_y + m) score s cos t_j (pace + cos t_j),
    where pace is the running mean of the cosines to the own centres, the same on all ranks.

    Args:
        m: radians, from 0 to below pi; number, list, or from counts (`ClassMargins`).
        momentum: weight of a new batch in the running mean.

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
        def rescore(cosine: Tensor) -> OtherScores:
            if self.training:
                _move(self.pace, cosine.mean(), self.momentum)
            turned = F.turned_cosine(cosine, self.m(labels))
            # A copy: the pace moves on before this batch's backward pass may have come.
            return _CurricularScores(turned, self.pace.clone())

        return rescore

    def cosine_margin(self, cosine: Tensor, norm: Tensor, labels: Tensor) -> Tensor:
        return F.additive_angular_margin(cosine, self.m(labels))


@MARGINS.register_module()
class MagFace(Margin):
    """z_y = s cos(t_y + m(a)), and g(a) on top: long features, those of good pictures, get more::

        a    = |x|, held between l and u
        m(a) = m_low + (a - l) (m_high - m_low) / (u - l)
        g(a) = 1 / a + a / u^2

    The lengths must suit the embedding: what ends in a batch norm over D channels has lengths
    of about sqrt(D).

    Args:
        norms: l and u.
        margins: m_low and m_high, radians, from 0 to below pi.
        penalty_weight: factor of the mean of g, lambda_g in the paper.
        easy_margin: as `ArcFace` has it.

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
        if not is_pair(norms) or not 0 < norms[0] < norms[1] < math.inf:
            raise ValueError(f'norms must be two lengths, 0 < l < u, got {norms!r}')
        if not is_pair(margins) or not 0 <= margins[0] <= margins[1] < math.pi:
            raise ValueError(f'margins must be two angles, 0 <= low <= high < pi, got {margins!r}')
        self.norms, self.margins = (norms[0], norms[1]), (margins[0], margins[1])
        self.penalty_weight, self.easy_margin = float(penalty_weight), easy_margin

    def cosine_margin(self, cosine: Tensor, norm: Tensor, labels: Tensor) -> Tensor:
        margin, _ = F.magnitude_margin(norm, self.norms, self.margins)
        return F.additive_angular_margin(cosine, margin, easy_margin=self.easy_margin)

    def penalty(self, norm: Tensor) -> Tensor | None:
        return self.penalty_weight * F.magnitude_margin(norm, self.norms, self.margins)[1]


class _ShrunkAngles:
    """SphereFace-R v2's: others at cos(t / m), with the gradient of cos t."""

    def __init__(self, margin: float) -> None:
        self.margin = margin

    def score(self, similarity: Tensor) -> Tensor:
        return torch.cos(similarity.clamp(-1, 1).acos_() / self.margin)

    def slope(self, similarity: Tensor) -> Tensor | None:
        return None


@MARGINS.register_module()
class SphereFaceR(Margin):
    """SphereFace revived: a factor on the angle, on a fixed scale, with the plain cosine's slope::

        v0   z_y = s psi(t_y)                 psi as in SphereFace
        v1   z_y = s cos(min(m t_y, pi))
        v2   z_y = s cos t_y, z_j = s cos(t_j / m)

    The value is the margin's; the gradient passes as if it were the cosine's own (characteristic
    gradient detachment).

    Args:
        m: factor on the angle, at least 1; any number.
        version: which of them.

    References:
        Liu et al., SphereFace Revived: Unifying Hyperspherical Face Recognition, TPAMI 2022,
        sections 3 and 4 (hard feature normalisation).
    """

    limits = {'m': (1, 16)}

    def __init__(self, m: float = 1.5, version: Literal['v0', 'v1', 'v2'] = 'v1') -> None:
        super().__init__()
        self.check(m=m)
        if version not in ('v0', 'v1', 'v2'):
            raise ValueError(f"version must be 'v0', 'v1' or 'v2', got {version!r}")
        self.m, self.version = float(m), version

    def cosine_margin(self, cosine: Tensor, norm: Tensor, labels: Tensor) -> Tensor:
        known = cosine.detach()
        if self.version == 'v2':
            return cosine
        form = {'v0': F.multiplicative_angular_margin, 'v1': F.clipped_multiplicative_margin}
        return form[self.version](known, self.m) + (cosine - known)

    def others(self, labels: Tensor) -> Callable[[Tensor], OtherScores] | None:
        return (lambda cosine: _ShrunkAngles(self.m)) if self.version == 'v2' else None


@MARGINS.register_module()
class UniFace(Margin):
    """Each class against one learned threshold b, instead of against the other classes::

        L = log(1 + exp(-(s (cos t_y - m) - b))) + l sum_{j != y} log(1 + exp(s cos t_j - b))

    So that one similarity parts all identities, as verification wants.

    Args:
        m: taken from the own cosine; number, list, or from counts (`ClassMargins`).
        negative_weight: l.
        bias: where b starts; None for log(10 C).

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
        super().bind(num_classes)
        start = math.log(10 * num_classes) if self._start is None else self._start
        nn.init.constant_(self.bias, start)

    def cosine_margin(self, cosine: Tensor, norm: Tensor, labels: Tensor) -> Tensor:
        return F.additive_cosine_margin(cosine, self.m(labels))

    def class_bias(self, num_classes: int) -> Tensor | None:
        return -self.bias.expand(num_classes)

    def loss(self, target: Tensor, others: Tensor) -> Tensor:
        return unified_cross_entropy_loss(target, others, self.negative_weight)


def _move(buffer: Tensor, value: Tensor, momentum: float) -> None:
    """Move a running mean towards a batch's value, the mean over all ranks.

    A batch without samples, or with features that overflowed, has no such value: it would stay in
    the mean for good. Its rank votes for the mean as it is.
    """
    # The buffer may be of half precision, or of float64.
    value, mean = promote_half(value.detach(), buffer)
    value = torch.where(value.isfinite(), value, mean)
    all_reduce(value, 'mean')
    buffer.copy_(mean.lerp(value, momentum))
