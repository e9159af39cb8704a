"""Directions and lengths of vectors of any length and precision."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from mmdet_ext.functional.numerics.directions import shortest_length, unit_vectors


def test_direction_and_gradient_are_exact_at_any_length() -> None:
    direction = F.normalize(torch.randn(1, 7, dtype=torch.float64), dim=1)
    for length in (1e-36, 1e-30, 1e-20, 1e-4, 1.0, 1e20, 1e30, 1e37):
        x = (length * direction).float().requires_grad_()
        unit, norm = unit_vectors(x)
        torch.testing.assert_close(unit.double(), direction, rtol=0, atol=2e-7)
        assert norm.item() == pytest.approx(length, rel=1e-6)
        target = torch.linspace(-1, 1, 7)
        (grad,) = torch.autograd.grad((unit * target).sum() + 0.5 * norm.sum(), x)
        across = target.double() - (target.double() * direction).sum() * direction
        expected = across / max(length, 1e-4) + 0.5 * direction
        torch.testing.assert_close(
            grad.double(), expected, rtol=1e-5, atol=2e-6 / max(length, 1e-4)
        )


def test_double_precision_and_the_option_shortest() -> None:
    x = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    assert unit_vectors(x)[0].dtype == torch.float32
    assert torch.autograd.gradcheck(lambda x: unit_vectors(x, dtype=torch.float64), x)
    short = (0.25 * F.normalize(torch.randn(1, 5))).requires_grad_()
    usual, bounded = (
        torch.autograd.grad(unit_vectors(short, shortest=s)[0][0, 0], short)[0] for s in (0.2, 1)
    )
    torch.testing.assert_close(bounded, 0.25 * usual, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ('dtype', 'slope', 'expected'),
    [
        (torch.float16, 64.0, 0.0625),
        (torch.float16, 1e-3, 1e-4),
        (torch.bfloat16, 64.0, 1e-4),
        (torch.float32, 1e9, 1e-4),
        (torch.float64, 64.0, 1e-4),
    ],
)
def test_only_float16_needs_longer_vectors(
    dtype: torch.dtype, slope: float, expected: float
) -> None:
    assert shortest_length(dtype, slope, 1024.0) == expected


def test_zero_and_empty_vectors_have_finite_gradients() -> None:
    x = torch.zeros(3, 4, requires_grad=True)
    unit, norm = unit_vectors(x)
    assert not unit.any() and not norm.any()
    (grad,) = torch.autograd.grad(unit.sum() + norm.sum(), x)
    assert grad.equal(torch.full((3, 4), 1e4))
    for shape in ((0, 4), (3, 0), (0, 0)):
        empty = torch.zeros(shape, requires_grad=True)
        unit, norm = unit_vectors(empty)
        (unit.sum() + norm.sum()).backward()
        assert unit.shape == shape and norm.shape == shape[:1] and empty.grad is not None
    # Denormal vectors have a direction too.
    assert unit_vectors(torch.tensor([[3e-44, 4e-44]]))[0][0].tolist() == pytest.approx(
        [0.6, 0.8], abs=0.02
    )
