"""Boundaries and score curves of the registered margins, computed by the margins themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from mmdet_ext.plots.margins import Boundary, Score, ScoreCurve, ScorePanel
from mmdet_ext.registry import MARGINS

#: Angles of the curves, half a degree apart. At 0 and 180 degrees the cosine has no slope by the
#: angle, so that both are left out.
DEGREES = np.linspace(0.5, 179.5, 359)
OWN, OTHER = 'angle to the own centre [degrees]', 'angle to another centre [degrees]'
#: Options of a margin without annealing.
AT_ONCE = dict(lambda_max=0, lambda_min=0)
#: Angle to the own centre in the curves of other classes, degrees.
OWN_ANGLE = 40.0


def margin_of(name: str, **options: Any) -> Any:
    """Build a registered margin for two classes."""
    margin = MARGINS.build(dict(type=name, **options))
    margin.bind(2)
    return margin


def own_score(
    margin: Any, degrees: np.ndarray, length: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the score of the own class by the angle to its centre, and the slope of the score.

    Args:
        margin: margin to draw.
        degrees: angles, (N,).
        length: length of the features.

    Returns:
        tuple: the score divided by the scale, and its derivative by the cosine as training uses
        it, (N,) each.
    """
    cosine = torch.tensor(np.cos(np.radians(degrees)), dtype=torch.float32, requires_grad=True)
    norm, labels = torch.full_like(cosine, length), torch.zeros(len(degrees), dtype=torch.int64)
    score = margin.cosine_margin(cosine, norm, labels)
    (slope,) = torch.autograd.grad(score.sum(), cosine)
    return score.detach().numpy(), slope.numpy()


def other_score(
    margin: Any, degrees: np.ndarray, own_degrees: float = OWN_ANGLE
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the score of another class by the angle to its centre, and the slope of the score.

    Args:
        margin: margin to draw, which must rescore other classes.
        degrees: angles to the other centre, (N,).
        own_degrees: angle to the own centre.

    Returns:
        tuple: the score divided by the scale, and its derivative by the cosine, (N,) each.
    """
    cosine = torch.tensor(np.cos(np.radians(degrees)), dtype=torch.float32)
    rescored = margin.eval().others(torch.zeros(1, dtype=torch.int64))
    assert rescored is not None
    scores = rescored(torch.tensor([np.cos(np.radians(own_degrees))], dtype=torch.float32))
    value, slope = scores.score(cosine[None].clone())[0], scores.slope(cosine[None].clone())
    # A slope of None stands for the gradient of the cosine itself.
    return value.numpy(), np.ones(len(degrees)) if slope is None else slope[0].numpy()


def boundaries() -> list[Boundary]:
    """Compute the boundaries of six margins between two classes."""

    def score(name: str, **options: Any) -> Score:
        margin = margin_of(name, **options)
        return lambda degrees: own_score(margin, degrees)[0]

    equal_lengths = r'$\cos\theta_1 > \cos\theta_2$  (centres of one length)'
    return [
        Boundary('Softmax, NormFace', equal_lengths, score('NormFace')),
        Boundary(
            'SphereFace, m = 4',
            r'$\psi(\theta_1) > \cos\theta_2$',
            score('SphereFace', m=4, **AT_ONCE),
        ),
        Boundary(
            'SphereFaceR v1, m = 1.5',
            r'$\cos\min(m\theta_1, \pi) > \cos\theta_2$',
            score('SphereFaceR', m=1.5),
        ),
        Boundary(
            'CosFace, m = 0.35', r'$\cos\theta_1 - m > \cos\theta_2$', score('CosFace', m=0.35)
        ),
        Boundary(
            'ArcFace, m = 0.5', r'$\cos(\theta_1 + m) > \cos\theta_2$', score('ArcFace', m=0.5)
        ),
        Boundary(
            'CombinedMargin (1, 0.3, 0.2)',
            r'$\cos(\theta_1 + 0.3) - 0.2 > \cos\theta_2$',
            score('CombinedMargin', m1=1.0, m2=0.3, m3=0.2),
        ),
    ]


def score_panels() -> list[ScorePanel]:
    """Compute the score curves of all registered margins.

    Four panels group the margins that this module knows. Any other registered margin is drawn with
    its default options, in a fifth panel.
    """
    groups = [
        ('Added to angle or cosine', OWN, _additive()),
        ('Factors on the angle', OWN, _multiplicative()),
        ("By the feature's length", OWN, [*_adaptive(), *_by_magnitude()]),
        (f'Other classes, own angle {OWN_ANGLE:g}°', OTHER, _of_other_classes()),
    ]
    drawn = ' '.join(curve.label for _, _, curves in groups for curve in curves)
    more = sorted(name for name in MARGINS.module_dict if name not in drawn)
    if more:
        groups.append(('Other margins', OWN, [_own(name, margin_of(name)) for name in more]))
    return [ScorePanel(title, xlabel, DEGREES, curves) for title, xlabel, curves in groups]


def _own(label: str, margin: Any, length: float = 1.0, dashed: bool = False) -> ScoreCurve:
    """Compute the curve of the own class."""
    return ScoreCurve(label, *own_score(margin, DEGREES, length), dashed)


def _additive() -> list[ScoreCurve]:
    """Compute the curves of margins that are added to the angle or the cosine."""
    easy = margin_of('ArcFace', m=0.5, easy_margin=True)
    through = margin_of('ArcFace', m=0.5, gradient='straight_through')
    return [
        _own('NormFace (Softmax)', margin_of('NormFace')),
        _own('CosFace 0.35 (UniFace)', margin_of('CosFace', m=0.35)),
        _own('ArcFace 0.5 (CurricularFace)', margin_of('ArcFace', m=0.5)),
        _own('ArcFace 0.5, easy margin', easy, dashed=True),
        _own('ArcFace 0.5, straight-through gradient', through, dashed=True),
        _own('CombinedMargin (1, 0.3, 0.2)', margin_of('CombinedMargin')),
    ]


def _multiplicative() -> list[ScoreCurve]:
    """Compute the curves of margins that multiply the angle."""
    annealed = margin_of('SphereFace', m=4, lambda_max=5, lambda_min=5)
    return [
        _own('NormFace (Softmax)', margin_of('NormFace')),
        _own('SphereFace, m = 4', margin_of('SphereFace', m=4, **AT_ONCE)),
        _own('SphereFace, m = 4, annealing at 5', annealed),
        _own('LSoftmax, m = 2', margin_of('LSoftmax', m=2, **AT_ONCE)),
        _own('SphereFaceR v0, m = 1.5', margin_of('SphereFaceR', version='v0'), dashed=True),
        _own('SphereFaceR v1, m = 1.5', margin_of('SphereFaceR', version='v1'), dashed=True),
    ]


def _adaptive() -> list[ScoreCurve]:
    """Compute AdaFace's curves for features of small, average and large length."""
    margin = margin_of('AdaFace', m=0.4)
    # Quality is h (length - mean) / deviation. This mean reaches -1 within lengths from 0 to 100.
    margin.mean.fill_(50.0)
    margin.deviation.fill_(10.0)
    deviation = float(margin.deviation) + 1e-3
    return [
        _own(
            f'AdaFace 0.4, quality {quality:+.0f}' if quality else 'AdaFace 0.4, quality 0',
            margin,
            50.0 + quality * deviation / margin.h,
        )
        for quality in (-1.0, 0.0, 1.0)
    ]


def _by_magnitude() -> list[ScoreCurve]:
    """Compute MagFace's curves for its smallest length, its largest, and the one between."""
    margin = margin_of('MagFace')
    low, high = margin.norms
    return [
        _own(f'MagFace, length {length:g}', margin, length, dashed=True)
        for length in (low, (low + high) / 2, high)
    ]


def _of_other_classes() -> list[ScoreCurve]:
    """Compute the curves of margins that rescore other classes."""
    shrunk = other_score(margin_of('SphereFaceR', version='v2'), DEGREES)
    return [
        ScoreCurve('cosine, of most margins', np.cos(np.radians(DEGREES)), np.ones(len(DEGREES))),
        *(_curricular(pace) for pace in (0.0, 0.3, 0.7)),
        ScoreCurve('SphereFaceR v2, m = 1.5', *shrunk, dashed=True),
    ]


def _curricular(pace: float) -> ScoreCurve:
    """Compute CurricularFace's curve at a pace."""
    margin = margin_of('CurricularFace', m=0.5)
    margin.pace.fill_(pace)
    return ScoreCurve(f'CurricularFace 0.5, pace {pace:g}', *other_score(margin, DEGREES))
