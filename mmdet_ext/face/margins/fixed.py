"""The margins that `MarginHead` takes: each an entry, with its options and what it remembers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from mmdet_ext.face.margins.class_margins import ClassMargins, MarginOption
from mmdet_ext.functional.embedding import margins as F
from mmdet_ext.functional.embedding.competition import Kind, OtherScores
from mmdet_ext.functional.embedding.margin_loss import margin_softmax_loss
from mmdet_ext.functional.numerics.checks import is_real
from mmdet_ext.registry import MARGINS

#: The margins that may have another value for each class, for messages.
PER_CLASS = 'AdaFace, ArcFace, CombinedMargin (m2, m3), CosFace, CurricularFace and UniFace'


class Margin(nn.Module):
    """What happens to the cosine between a sample and its own class centre.

    A subclass writes `cosine_margin`, and what else differs from a softmax over scaled cosines.

    Attributes:
        normalize_features: whether scores are s cos t; |x| cos t otherwise, and the head's scale
            is not used.
        normalize_weight: whether centres are normalised; |w| |x| cos t otherwise.
        kind: how classes compete: in a softmax, or each against a threshold.
        limits: from where to where its numbers may be.
    """

    normalize_features = True
    normalize_weight = True
    kind: Kind = 'softmax'
    limits: ClassVar[dict[str, tuple[float, float]]] = {}

    def check(self, **numbers: Any) -> None:
        """Check numbers by the names of their options.

        Raises:
            TypeError: if one is no number.
            ValueError: if one is out of its limits, or not finite.
        """
        for name, value in numbers.items():
            if not is_real(value):
                several = hasattr(value, '__iter__') and not isinstance(value, str)
                hint = f'. {PER_CLASS} take one a class' if several else ''
                raise TypeError(
                    f'{name} of {type(self).__name__} must be one number, got {value!r}{hint}'
                )
            low, high = self.limits.get(name, (-math.inf, math.inf))
            if not (math.isfinite(value) and low <= float(value) <= high):
                span = (
                    f'from {low:.4g} to {high:.4g}'
                    if high < math.inf
                    else (f'at least {low:.4g} and finite' if low > -math.inf else 'finite')
                )
                raise ValueError(f'{name} of {type(self).__name__} must be {span}, got {value!r}')

    def bind(self, num_classes: int) -> None:
        """Learn for how many classes it is, once, from the head."""
        for value in self.children():
            if isinstance(value, ClassMargins):
                value.bind(num_classes)

    def observe(self, cosine: Tensor, norm: Tensor) -> None:
        """In training, look at a batch's cosines and lengths before they are scored."""

    def cosine_margin(self, cosine: Tensor, norm: Tensor, labels: Tensor) -> Tensor:
        """What stands in place of the own class's cosine, (N,).

        Args:
            cosine: cos t between feature and own centre, (N,).
            norm: length of the feature, (N,).
            labels: class of each sample, (N,).
        """
        raise NotImplementedError(f'{type(self).__name__} does not define cosine_margin')

    def others(self, labels: Tensor) -> Callable[[Tensor], OtherScores] | None:
        """What makes, of the own cosines, the scores of the other classes; None for s cos t."""
        return None

    def class_bias(self, num_classes: int) -> Tensor | None:
        """What is added to each class's score, (C,), None for nothing."""
        return None

    def penalty(self, norm: Tensor) -> Tensor | None:
        """A price of the feature's length, weighed, one a sample, (N,); None for none."""
        return None

    def loss(self, target: Tensor, others: Tensor) -> Tensor:
        """One loss a sample, of the own class's score and what it has to beat."""
        return margin_softmax_loss(target, others)

    def set_margin(self, name: str, value: float) -> None:
        """Set an option that is a number, as a schedule does.

        Raises:
            ValueError: if there is no such number, or it does not take the value.
        """
        current = getattr(self, name, None)
        if isinstance(current, ClassMargins):
            current.set(value)
        elif isinstance(current, (int, float)) and not isinstance(current, bool):
            self.check(**{name: value})
            setattr(self, name, value)
        else:
            numbers = [
                key
                for key, own in {**vars(self), **self._modules}.items()
                if not key.startswith('_')
                and key != 'training'
                and isinstance(own, (int, float, ClassMargins))
                and not isinstance(own, bool)
            ]
            raise ValueError(
                f'{type(self).__name__} has no number named {name!r} to set; it has: '
                f'{", ".join(numbers) or "none"}'
            )


@MARGINS.register_module()
class Softmax(Margin):
    """No margin, nothing normalised: z_j = w_j x + b_j, the plain softmax classifier.

    Args:
        bias: whether there is a b, which starts at 0.
    """

    normalize_features = False
    normalize_weight = False

    def __init__(self, bias: bool = False) -> None:
        super().__init__()
        self.has_bias = bias

    def bind(self, num_classes: int) -> None:
        if self.has_bias:
            self.bias = nn.Parameter(torch.zeros(num_classes))

    def cosine_margin(self, cosine: Tensor, norm: Tensor, labels: Tensor) -> Tensor:
        return cosine

    def class_bias(self, num_classes: int) -> Tensor | None:
        return self.bias if self.has_bias else None


@MARGINS.register_module()
class NormFace(Margin):
    """No margin, both normalised: z_j = s cos t_j.

    References:
        Wang et al., NormFace: L2 Hypersphere Embedding for Face Verification, ACM MM 2017, eq. 5.
    """

    def __init__(self) -> None:
        super().__init__()

    def cosine_margin(self, cosine: Tensor, norm: Tensor, labels: Tensor) -> Tensor:
        return cosine


class _Annealed(Margin):
    """psi, mixed with the cosine by a lambda that falls: (l cos t + psi(t)) / (1 + l)."""

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
        super().check(**numbers)
        m = numbers.get('m', 1)
        if m != int(m):
            raise ValueError(f'm must be a whole number, got {m!r}: it multiplies the angle')
        ends = {'lambda_max': math.inf, 'lambda_min': 0.0}
        high, low = (numbers.get(end, getattr(self, end, none)) for end, none in ends.items())
        if low > high:
            raise ValueError(
                f'lambda_min={low!r} of {type(self).__name__} is above lambda_max={high!r}: '
                'lambda falls from lambda_max to lambda_min'
            )

    def observe(self, cosine: Tensor, norm: Tensor) -> None:
        self.step += 1

    def annealing(self) -> Tensor:
        """The present lambda."""
        falling = self.lambda_max * (1 + self.gamma * self.step.float()) ** -self.power
        return falling.clamp(min=self.lambda_min)

    def cosine_margin(self, cosine: Tensor, norm: Tensor, labels: Tensor) -> Tensor:
        moved = F.multiplicative_angular_margin(cosine, int(self.m))
        return cosine + (moved - cosine) / (1 + self.annealing())


@MARGINS.register_module()
class SphereFace(_Annealed):
    """A-Softmax: centres normalised, z_y = |x| psi(t_y), psi falling m times as fast as cos.

    Training starts as plain softmax over normalised centres and moves to psi as lambda falls::

        l = max(lambda_min, lambda_max (1 + gamma step)^-power)
        z_y = |x| (l cos t + psi(t)) / (1 + l)

    Args:
        m: factor on the angle, 1 to 4 in the paper; 1 is no margin.
        lambda_max, lambda_min, gamma, power: the annealing, lambda_min at most lambda_max;
            lambda_max = lambda_min = 0 is psi from the start. The steps taken are kept in
            checkpoints.

    References:
        Liu et al., SphereFace: Deep Hypersphere Embedding for Face Recognition, CVPR 2017, eq. 7.
    """


@MARGINS.register_module()
class LSoftmax(_Annealed):
    """Large-margin softmax: nothing normalised, z_y = |w_y| |x| psi(t_y).

    Args:
        m: factor on the angle; 1 is no margin.
        lambda_max, lambda_min, gamma, power: as `SphereFace` has them.

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
    """z_y = s (cos t_y - m).

    Args:
        m: one number, one a class as a list, or from counts (`ClassMargins`).

    References:
        Wang et al., CosFace, CVPR 2018, eq. 4.
    """

    def __init__(self, m: MarginOption = 0.35) -> None:
        super().__init__()
        self.m = ClassMargins('m', m)

    def cosine_margin(self, cosine: Tensor, norm: Tensor, labels: Tensor) -> Tensor:
        return F.additive_cosine_margin(cosine, self.m(labels))


@MARGINS.register_module()
class ArcFace(Margin):
    """z_y = s cos(t_y + m).

    For angles t_y above pi - m it is s (cos t_y - m sin m), for m from 2.33 on a step up there.

    Args:
        m: radians, from 0 to below pi; one number, one a class, or from counts (`ClassMargins`).
        easy_margin: leave angles above a right one alone.
        gradient: 'analytic', or 'straight_through', InsightFace's, which takes the slope for 1.

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
        if gradient not in ('analytic', 'straight_through'):
            raise ValueError(f"gradient must be 'analytic' or 'straight_through', got {gradient!r}")
        self.m = ClassMargins('m', m, (0, math.pi))
        self.easy_margin = easy_margin
        self.straight_through = gradient == 'straight_through'

    def cosine_margin(self, cosine: Tensor, norm: Tensor, labels: Tensor) -> Tensor:
        return F.additive_angular_margin(
            cosine,
            self.m(labels),
            easy_margin=self.easy_margin,
            straight_through=self.straight_through,
        )


@MARGINS.register_module()
class CombinedMargin(Margin):
    """z_y = s (cos(m1 t_y + m2) - m3): all three do what they say, together too.

    (1, m, 0) is ArcFace, (1, 0, m) CosFace, (m, 0, 0) SphereFace's psi on a fixed scale. Where the
    angle passes pi, ArcFace's rule holds for m1 = 1, psi's for others: a jump as m1 leaves 1.

    Args:
        m1: factor on the angle, at least 1.
        m2: added to it, in radians, from 0 to below pi; number, list, or from counts.
        m3: taken from the cosine; number, list, or from counts.

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
        return F.combined_margin(cosine, self.m1, self.m2(labels), self.m3(labels))
