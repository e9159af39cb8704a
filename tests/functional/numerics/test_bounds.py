"""Slopes at bounds and ties, as numbers: a release of PyTorch that changes one fails here."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mmdet_ext.functional import boxes, embedding
from mmdet_ext.functional.numerics import at_least, at_most, inside, not_negative

BOUNDS: dict[str, tuple[Callable[[Tensor], Tensor], list[float], list[float]]] = {
    'not_negative': (not_negative, [0.0, 0.0, 0.0, 1.0, 4.0], [0, 0, 1, 1, 1]),
    'at_least': (lambda x: at_least(x, 1.0), [1.0, 1.0, 1.0, 1.0, 4.0], [0, 0, 0, 0, 1]),
    'at_most': (lambda x: at_most(x, 1.0), [-3.0, -1.0, 0.0, 1.0, 1.0], [1, 1, 1, 0, 0]),
    'inside': (lambda x: inside(x, -1.0, 1.0), [-1.0, -1.0, 0.0, 1.0, 1.0], [0, 1, 1, 1, 0]),
}


def slope(function: Callable[[Tensor], Tensor], at: list[float], dtype: torch.dtype) -> list[float]:
    """Differentiate the sum of a function's results at some values."""
    value = torch.tensor(at, dtype=dtype, requires_grad=True)
    (gradient,) = torch.autograd.grad(function(value).sum(), value)
    found: list[float] = gradient.tolist()
    return found


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('name', BOUNDS)
def test_value_and_slope_at_a_bound(name: str, dtype: torch.dtype) -> None:
    function, values, slopes = BOUNDS[name]
    at = [-3.0, -1.0, 0.0, 1.0, 4.0]
    assert function(torch.tensor(at, dtype=dtype)).tolist() == values
    assert slope(function, at, dtype) == slopes


@pytest.mark.parametrize('name', BOUNDS)
def test_not_a_number_passes(name: str) -> None:
    found = BOUNDS[name][0](torch.tensor([math.nan, math.inf, -math.inf]))
    assert found[0].isnan() and not found[1:].isnan().any()


TOUCHING = ([0.0, 0.0, 4.0, 4.0], [4.0, 0.0, 8.0, 4.0])
CORNER = ([0.0, 0.0, 4.0, 4.0], [4.0, 4.0, 8.0, 8.0])
EQUAL = ([0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 4.0])
APART = ([0.0, 0.0, 4.0, 4.0], [5.0, 0.0, 9.0, 4.0])

#: Gradients by x1, y1, x2, y2 of the first box. The union is 32 px**2 for boxes that touch, and the
#: intersection grows by 4 px**2 per px of x2, half as fast where the edges coincide.
LINEAR = [
    (TOUCHING, [0, 0, -4 / 32, 0]),
    (CORNER, [0, 0, 0, 0]),
    (EQUAL, [0, 0, 0, 0]),
    (APART, [0, 0, 0, 0]),
]


@pytest.mark.parametrize('many', [1, 70_000])
@pytest.mark.parametrize(('pair', 'expected'), LINEAR)
def test_gradient_of_the_iou_at_ties(
    pair: tuple[list[float], list[float]], expected: list[float], many: int
) -> None:
    pred = torch.tensor([pair[0]], dtype=torch.float64).repeat(many, 1).requires_grad_()
    target = torch.tensor([pair[1]], dtype=torch.float64).repeat(many, 1)
    wanted = torch.tensor([expected], dtype=torch.float64).expand(many, 4)
    (found,) = torch.autograd.grad(boxes.iou_loss(pred, target, 'linear').sum(), pred)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-15)
    (found,) = torch.autograd.grad(-boxes.box_iou(pred, target).sum(), pred)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-15)


def test_gradient_of_the_log_iou_of_boxes_that_touch() -> None:
    found = slope(
        lambda x: boxes.iou_loss(x, torch.tensor(TOUCHING[1]).double(), 'log', eps=1e-4),
        TOUCHING[0],
        torch.float64,
    )
    # That of an intersection sqrt(eps) px wide: 1 / 0.01.
    assert found == pytest.approx([0, 0, -100, 0], rel=1e-9)


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        # (C - U) / C has no slope along x here: boxes that touch fill the box around both.
        ('giou_loss', [0, 0, -4 / 32, 0]),
        # rho^2 / c^2 = 16 / 80, by the quotient rule.
        (
            'diou_loss',
            [-4 / 80 + 2 * 8 * 16 / 80**2, 4 * 16 / 80**2, -4 / 80 - 4 / 32, -4 * 16 / 80**2],
        ),
    ],
)
def test_gradient_of_penalties_for_boxes_that_touch(name: str, expected: list[float]) -> None:
    # By x1 and x2 the gap of the centres changes by 1/2 px; the diagonal's square by 2 * 8 per px
    # of x1. In y the edges coincide and share the slope 2 * 4 of the diagonal's square.
    target = torch.tensor(TOUCHING[1]).double()
    loss = getattr(boxes, name)
    found = slope(lambda x: loss(x, target), TOUCHING[0], torch.float64)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize('cosine', [1.0, 1 + 1e-7])
def test_slopes_of_a_feature_on_its_center(cosine: float) -> None:
    # A feature that points to its centre has a cosine of 1 or, rounded, just above it.
    assert slope(embedding.sine_of, [cosine], torch.float32) == pytest.approx([-1e3], rel=1e-6)
    assert slope(embedding.angle_of, [cosine], torch.float32) == pytest.approx([-1e3], rel=1e-6)
    arc = slope(lambda c: embedding.additive_angular_margin(c, 0.5), [cosine], torch.float32)
    assert arc == pytest.approx([math.cos(0.5) + math.sin(0.5) * 1e3], rel=1e-6)


def test_slopes_of_lengths_on_their_bounds() -> None:
    def part(index: int) -> Callable[[Tensor], Tensor]:
        return lambda a: embedding.magnitude_margin(a, (10, 110), (0.45, 0.8))[index]

    lengths = [9.0, 10.0, 110.0, 111.0]
    assert slope(part(0), lengths, torch.float64) == pytest.approx([0, 0.0035, 0.0035, 0])
    penalty = [0, 1 / 110**2 - 1 / 10**2, 0, 0]
    assert slope(part(1), lengths, torch.float64) == pytest.approx(penalty, abs=1e-15)
