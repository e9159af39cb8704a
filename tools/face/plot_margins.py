"""Draw what margins do: decision boundaries, the own class's score by angle, and its slope.

    python tools/face/plot_margins.py --out docs/images/face

margin_boundaries.png: two classes, by the angles to both centres. margin_scores.png: the score that
a margin puts in the cosine's place, and below it the factor on the gradient, which is 1 for the
cosine itself; of all margins of mmdet_ext.MarginHead. All is computed by the margins themselves.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmdet_ext.face.heads import build_margin
from mmdet_ext.face.margins.base import Margin
from mmdet_ext.plots.margins import (
    Boundary,
    Score,
    ScoreCurve,
    ScorePanel,
    draw_boundaries,
    draw_scores,
)

#: Half a degree apart. The ends, where the cosine has no slope by the angle, are left out.
DEGREES = np.linspace(0.5, 179.5, 359)
OWN, OTHER = 'angle to the own centre [degrees]', 'angle to another centre [degrees]'
#: A margin without annealing.
AT_ONCE = dict(lambda_max=0, lambda_min=0)
#: The cosine to the own centre from which CurricularFace's curves take the threshold, degrees.
OWN_ANGLE = 40.0


def main(argv: list[str] | None = None) -> int:
    """Draw both pictures and print their names; returns 0, or 2 for a folder that cannot be."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--out', type=Path, default=Path('docs/images/face'), help='folder')
    args = parser.parse_args(argv)
    try:
        draw_boundaries(boundaries(), args.out / 'margin_boundaries.png')
        print(args.out / 'margin_boundaries.png')
        draw_scores(score_panels(), args.out / 'margin_scores.png')
        print(args.out / 'margin_scores.png')
    except OSError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    return 0


def margin_of(name: str, **options: Any) -> Margin:
    """A margin for two classes."""
    return build_margin(dict(type=name, **options), num_classes=2)


def own_score(
    margin: Margin, degrees: np.ndarray, length: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Score of the own class by the angle to its centre, divided by the scale, and its slope.

    Args:
        margin: which.
        degrees: (N,).
        length: of the features.

    Returns:
        (N,) each: the score, and its derivative by the cosine as it goes into training.
    """
    cosine = torch.tensor(np.cos(np.radians(degrees)), dtype=torch.float32, requires_grad=True)
    norm, labels = torch.full_like(cosine, length), torch.zeros(len(degrees), dtype=torch.int64)
    return _with_slope(margin.cosine_margin(cosine, norm, labels), cosine)


def other_score(
    margin: Margin, degrees: np.ndarray, own_degrees: float = OWN_ANGLE
) -> tuple[np.ndarray, np.ndarray]:
    """Score of another class by the angle to its centre, and its slope.

    Args:
        margin: which.
        degrees: (N,).
        own_degrees: angle to the own centre.
    """
    cosine = torch.tensor(np.cos(np.radians(degrees)), dtype=torch.float32)
    rescored = margin.eval().others(torch.zeros(1, dtype=torch.int64))
    assert rescored is not None
    scores = rescored(torch.tensor([np.cos(np.radians(own_degrees))], dtype=torch.float32))
    value, slope = scores.score(cosine[None].clone())[0], scores.slope(cosine[None].clone())
    # None: passed as if it were the cosine's own.
    return value.numpy(), np.ones(len(degrees)) if slope is None else slope[0].numpy()


def _with_slope(score: Tensor, cosine: Tensor) -> tuple[np.ndarray, np.ndarray]:
    (slope,) = torch.autograd.grad(score.sum(), cosine)
    return score.detach().numpy(), slope.numpy()


def boundaries() -> list[Boundary]:
    """Six margins between two classes."""

    def score(name: str, **options: Any) -> Score:
        margin = margin_of(name, **options)
        return lambda degrees: own_score(margin, degrees)[0]

    return [
        Boundary(
            'Softmax, NormFace',
            r'$\cos\theta_1 > \cos\theta_2$  (centres of one length)',
            score('NormFace'),
        ),
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
    """All margins, in four panels."""
    return [
        ScorePanel(
            'Added to angle or cosine',
            OWN,
            DEGREES,
            [
                _own('NormFace (Softmax)', margin_of('NormFace')),
                _own('CosFace 0.35 (UniFace)', margin_of('CosFace', m=0.35)),
                _own('ArcFace 0.5 (CurricularFace)', margin_of('ArcFace', m=0.5)),
                _own(
                    'ArcFace 0.5, easy margin',
                    margin_of('ArcFace', m=0.5, easy_margin=True),
                    dashed=True,
                ),
                _own(
                    'ArcFace 0.5, straight-through gradient',
                    margin_of('ArcFace', m=0.5, gradient='straight_through'),
                    dashed=True,
                ),
                _own('CombinedMargin (1, 0.3, 0.2)', margin_of('CombinedMargin')),
            ],
        ),
        ScorePanel(
            'Factors on the angle',
            OWN,
            DEGREES,
            [
                _own('NormFace (Softmax)', margin_of('NormFace')),
                _own('SphereFace, m = 4', margin_of('SphereFace', m=4, **AT_ONCE)),
                _own(
                    'SphereFace, m = 4, annealing at 5',
                    margin_of('SphereFace', m=4, lambda_max=5, lambda_min=5),
                ),
                _own('LSoftmax, m = 2', margin_of('LSoftmax', m=2, **AT_ONCE)),
                _own(
                    'SphereFaceR v0, m = 1.5', margin_of('SphereFaceR', version='v0'), dashed=True
                ),
                _own(
                    'SphereFaceR v1, m = 1.5', margin_of('SphereFaceR', version='v1'), dashed=True
                ),
            ],
        ),
        ScorePanel(
            "By the feature's length",
            OWN,
            DEGREES,
            [
                *_adaptive(),
                *_by_magnitude(),
            ],
        ),
        ScorePanel(
            f'Other classes, own angle {OWN_ANGLE:g}°',
            OTHER,
            DEGREES,
            [
                ScoreCurve(
                    'cosine, of most margins', np.cos(np.radians(DEGREES)), np.ones(len(DEGREES))
                ),
                *(_curricular(pace) for pace in (0.0, 0.3, 0.7)),
                ScoreCurve(
                    'SphereFaceR v2, m = 1.5',
                    *other_score(margin_of('SphereFaceR', version='v2'), DEGREES),
                    dashed=True,
                ),
            ],
        ),
    ]


def _own(label: str, margin: Margin, length: float = 1.0, dashed: bool = False) -> ScoreCurve:
    return ScoreCurve(label, *own_score(margin, DEGREES, length), dashed)


def _adaptive() -> list[ScoreCurve]:
    """AdaFace for features that are short, average and long among a batch's."""
    margin: Any = margin_of('AdaFace', m=0.4)
    # Quality is h (length - mean) / deviation; a mean that leaves room for -1 within 0 .. 100.
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
    """MagFace for features of its least length, its greatest, and one between."""
    margin: Any = margin_of('MagFace')
    low, high = margin.norms
    return [
        _own(f'MagFace, length {length:g}', margin, length, dashed=True)
        for length in (low, (low + high) / 2, high)
    ]


def _curricular(pace: float) -> ScoreCurve:
    margin: Any = margin_of('CurricularFace', m=0.5)
    margin.pace.fill_(pace)
    return ScoreCurve(f'CurricularFace 0.5, pace {pace:g}', *other_score(margin, DEGREES))


if __name__ == '__main__':
    sys.exit(main())
