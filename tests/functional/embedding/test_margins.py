"""Margins on the cosine, against the formulas of the papers in float64 with the arc cosine."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from mmdet_ext.functional.embedding.margins import (
    adaptive_margin,
    additive_angular_margin,
    additive_cosine_margin,
    angle_of,
    clipped_multiplicative_margin,
    combined_margin,
    magnitude_margin,
    multiplicative_angular_margin,
    sine_of,
)
from tests._helpers.tolerances import assert_equal_but_rounding

Form = Callable[[Tensor], Tensor]
# Cosines at which slopes are exact: angles from 0.003 to pi - 0.003, without the right angle.
INTERIOR = torch.cos(torch.linspace(0.003, math.pi - 0.003, 1000, dtype=torch.float64))
EVERYWHERE = torch.cat([torch.linspace(-1, 1, 2001), torch.tensor([1 - 6e-8, 1 + 2e-7, -1 - 2e-7])])


def psi(t: Tensor, m: float) -> Tensor:
    """Compute (-1)^k cos(m t) - 2k on [k pi / m, (k + 1) pi / m]."""
    k = torch.floor(m * t / math.pi)
    return (-1) ** k * torch.cos(m * t) - 2 * k


def arcface(t: Tensor, m: float) -> Tensor:
    return torch.where(t + m < math.pi, torch.cos(t + m), torch.cos(t) - m * math.sin(m))


def adaface(t: Tensor, q: float, m: float) -> Tensor:
    return torch.cos((t - m * q).clamp(0, math.pi)) - (m + m * q)


def clipped(t: Tensor, m: float) -> Tensor:
    return torch.cos((m * t).clamp(max=math.pi))


def of_quality(cosine: Tensor, q: float, m: float) -> Tensor:
    return adaptive_margin(cosine, torch.full_like(cosine, q, dtype=torch.float32), m)


FORMS: dict[str, tuple[Form, Form]] = {
    'cosine': (lambda c: additive_cosine_margin(c, 0.35), lambda t: torch.cos(t) - 0.35),
    **{
        f'angular {m}': (partial(additive_angular_margin, margin=m), partial(arcface, m=m))
        for m in (0, 0.1, 0.5, 1, 2, 3.1)
    },
    'angular easy': (
        lambda c: additive_angular_margin(c, 0.5, easy_margin=True),
        lambda t: torch.where(t < math.pi / 2, torch.cos(t + 0.5), torch.cos(t)),
    ),
    **{
        f'multiple {m}': (partial(multiplicative_angular_margin, margin=m), partial(psi, m=m))
        for m in (1, 2, 3, 4, 5, 8, 1.5, 2.7)
    },
    'combined 1': (lambda c: combined_margin(c, 1, 0.3, 0.2), lambda t: arcface(t, 0.3) - 0.2),
    'combined 2': (lambda c: combined_margin(c, 2, 0.0, 0.1), lambda t: psi(t, 2) - 0.1),
    'combined 3': (
        lambda c: combined_margin(c, 1.35, 0.25, 0.1),
        lambda t: psi(t + 0.25 / 1.35, 1.35) - 0.1,
    ),
    **{
        f'clipped {m}': (partial(clipped_multiplicative_margin, margin=m), partial(clipped, m=m))
        for m in (1, 1.5, 4)
    },
    **{
        f'adaptive {q}': (partial(of_quality, q=q, m=0.4), partial(adaface, q=q, m=0.4))
        for q in (-1.0, -0.3, 0.0, 0.3, 1.0)
    },
}
each_form = pytest.mark.parametrize('name', FORMS)


def with_gradient(form: Form, at: Tensor) -> tuple[Tensor, Tensor]:
    leaf = at.clone().requires_grad_()
    value = form(leaf)
    return value.detach(), torch.autograd.grad(value.sum(), leaf)[0]


@each_form
def test_value_and_slope_are_those_of_the_paper(name: str) -> None:
    form, paper = FORMS[name]
    cosine = INTERIOR.float()
    # The formula gets the rounded cosine.
    expected, slope = with_gradient(lambda c: paper(torch.acos(c)), cosine.double())
    found, found_slope = with_gradient(form, cosine)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=4e-6)
    # Where two pieces meet, rounding may choose the slope of the other piece.
    jump = (slope.diff().abs() > 0.2).nonzero().flatten()
    off = (found_slope.double() - slope).abs() > 2e-3 * (1 + slope.abs())
    allowed = {int(i) + d for i in jump for d in (0, 1)}
    assert set(off.nonzero().flatten().tolist()) <= allowed


@each_form
def test_value_is_exact_and_slope_bounded_at_the_ends(name: str) -> None:
    form, paper = FORMS[name]
    value, slope = with_gradient(form, EVERYWHERE)
    expected = paper(torch.acos(EVERYWHERE.double().clamp(-1, 1)))
    # Cosines rounded above 1 continue along the slope there, m^2.
    atol = 4e-7 * max(float(name.split()[1]), 4) ** 2 if name.startswith('multiple') else 2e-6
    torch.testing.assert_close(value.double(), expected, rtol=0, atol=atol)
    # The bounds are m^2 for psi's polynomials, and 1000 times the factor for an angle.
    assert slope.isfinite().all() and slope.abs().max() <= 4100


@each_form
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    form, _ = FORMS[name]
    cosine = torch.linspace(-1, 1, 101).to(dtype)
    assert form(cosine).equal(form(cosine.float()))


@each_form
def test_double_precision_is_kept(name: str) -> None:
    form, paper = FORMS[name]
    expected, slope = with_gradient(lambda c: paper(torch.acos(c)), INTERIOR)
    found, found_slope = with_gradient(form, INTERIOR)
    assert found.dtype == found_slope.dtype == torch.float64
    # AdaFace's quality is in single precision, as its means are.
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-7 if 'adapt' in name else 1e-11)
    torch.testing.assert_close(found_slope, slope, rtol=1e-6, atol=1e-6)
    # These cosines are far from the ends and from the points where two pieces meet.
    at = torch.tensor([0.93, 0.41, 0.17, -0.23, -0.62], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(form, at)


@each_form
def test_margin_never_adds_to_the_score(name: str) -> None:
    # The score equals the cosine for a margin of 0. AdaFace of high quality shrinks the angle, but
    # subtracts 2 m, which is more.
    form, _ = FORMS[name]
    assert (form(EVERYWHERE) <= EVERYWHERE + 2e-5).all()


@pytest.mark.parametrize(
    'name', [name for name in FORMS if 'easy' not in name and not name.startswith('angular 3')]
)
def test_score_falls_with_the_angle(name: str) -> None:
    value = FORMS[name][0](torch.cos(torch.linspace(0, math.pi, 5001)))
    # ArcFace steps at t + m = pi from -1 to -cos m - m sin m, upwards if m is large.
    step = max(float(name.split()[1]), 0.3) if name.startswith(('angular', 'combined 1')) else 0
    rise = max(1 - math.cos(step) - step * math.sin(step), 0) if step else 0
    assert value.diff().max() <= rise + 2e-6


@pytest.mark.parametrize('m', [0.2, 0.5, 1, 2, 2.33, 2.332, 2.6, 3, 3.1])
def test_arcface_steps_down_for_margins_up_to_2_33_and_up_for_larger_ones(m: float) -> None:
    t = math.pi - m + torch.tensor([-1e-6, 1e-6], dtype=torch.float64)
    before, after = additive_angular_margin(torch.cos(t), m).tolist()
    assert after - before == pytest.approx(1 - math.cos(m) - m * math.sin(m), abs=1e-5)
    assert (after > before) == (m > 2.3311)


def test_combined_margin_jumps_as_its_factor_leaves_1_only_beyond_pi() -> None:
    c = torch.tensor([-0.99, -0.5, 0.3])
    one, more = (combined_margin(c, m1, 0.5, 0.0).tolist() for m1 in (1, 1.0001))
    assert one[0] == pytest.approx(-1.2297, abs=1e-4)
    assert more[0] == pytest.approx(-1.0637, abs=1e-4)
    assert one[1:] == pytest.approx(more[1:], abs=3e-4)


@pytest.mark.parametrize('m', [2, 3, 4, 8, 1.5, 2.7])
def test_psi_is_continuous_and_falls(m: float) -> None:
    t = torch.linspace(0, math.pi, 200_001, dtype=torch.float64)
    value = multiplicative_angular_margin(torch.cos(t), m)
    assert value[0] == 1
    assert value[-1].item() == pytest.approx(psi(t[-1:] * (1 - 1e-12), m).item(), abs=1e-4)
    if m == int(m):
        assert value[-1] == -(2 * m - 1)
    # Without a jump: next to pi, a float32 cosine distinguishes angles 3.5e-4 apart.
    assert value.diff().abs().max() < 4e-4 * m
    assert value.diff().max() <= 2e-5


@pytest.mark.parametrize('m', [0, 0.0, 1, 0.5, 2])
def test_combined_margin_is_each_of_its_parts(m: Any) -> None:
    c = EVERYWHERE
    assert combined_margin(c, 1, m, 0).equal(additive_angular_margin(c, m))
    assert combined_margin(c, 1.0, 0, m).equal(additive_cosine_margin(c, m))
    if m >= 1:
        assert combined_margin(c, m, 0, 0).equal(multiplicative_angular_margin(c, m))


def test_combined_margin_of_tensors_of_zeros_is_psi() -> None:
    zeros = torch.zeros_like(EVERYWHERE)
    torch.testing.assert_close(
        combined_margin(EVERYWHERE, 3, zeros, zeros),
        multiplicative_angular_margin(EVERYWHERE, 3),
        rtol=0,
        atol=5e-6,
    )


@pytest.mark.parametrize(
    'form',
    [
        lambda c: additive_cosine_margin(c, 0),
        lambda c: additive_angular_margin(c, 0),
        lambda c: additive_angular_margin(c, 0, easy_margin=True),
        lambda c: additive_angular_margin(c, 0, straight_through=True),
        lambda c: multiplicative_angular_margin(c, 1),
        lambda c: combined_margin(c, 1, 0, 0),
        lambda c: clipped_multiplicative_margin(c, 1),
        lambda c: adaptive_margin(c, torch.full_like(c, 0.7), 0),
    ],
)
def test_no_margin_is_the_cosine(form: Form) -> None:
    value, slope = with_gradient(form, INTERIOR.float())
    torch.testing.assert_close(value, INTERIOR.float(), rtol=0, atol=5e-7)
    torch.testing.assert_close(slope, torch.ones_like(slope), rtol=0, atol=2e-3)


def test_quality_moves_adaface_from_arcface_to_cosface_and_beyond() -> None:
    c = EVERYWHERE
    q = torch.zeros_like(c)
    assert adaptive_margin(c, q, 0.4).equal(additive_cosine_margin(c, 0.4))
    # Where ArcFace goes on falling, AdaFace stops at -1.
    within = c > -math.cos(0.4)
    found = adaptive_margin(c, q - 1, 0.4)[within]
    assert_equal_but_rounding(found, additive_angular_margin(c, 0.4)[within])
    assert (adaptive_margin(c, q - 1, 0.4)[~within] == -1).all()
    # For the best images, angles below m count as 0.
    assert (adaptive_margin(c, q + 1, 0.4)[c > math.cos(0.4)] == torch.tensor(1.0) - 0.8).all()


@pytest.mark.parametrize('m', [0.2, 0.5, 1])
def test_margins_per_sample_equal_margins_of_single_samples(m: float) -> None:
    c, margins = torch.tensor([0.3, -0.4, 0.9]), torch.tensor([0.1, m, 0.7])
    for form in (
        additive_cosine_margin,
        additive_angular_margin,
        lambda c, m: combined_margin(c, 1.0, m, m),
        lambda c, m: combined_margin(c, 1.5, m, m),
    ):
        alone = torch.cat([form(c[i : i + 1], float(margins[i])) for i in range(3)])
        torch.testing.assert_close(form(c, margins), alone, rtol=0, atol=1e-6)
    quality = torch.tensor([-0.5, 0.2, 0.9])
    alone = torch.cat(
        [adaptive_margin(c[i : i + 1], quality[i : i + 1], float(margins[i])) for i in range(3)]
    )
    assert_equal_but_rounding(adaptive_margin(c, quality, margins), alone)


def test_straight_through_has_the_value_of_the_margin_and_the_slope_of_the_cosine() -> None:
    """InsightFace's program adds the margin outside autograd."""
    value, slope = with_gradient(
        lambda c: additive_angular_margin(c, 0.5, straight_through=True), EVERYWHERE
    )
    torch.testing.assert_close(value, additive_angular_margin(EVERYWHERE, 0.5), rtol=0, atol=3e-7)
    assert (slope == 1).all()
    _, analytic = with_gradient(lambda c: additive_angular_margin(c, 0.5), torch.tensor([0.8]))
    t = math.acos(0.8)
    assert analytic.item() == pytest.approx(math.sin(t + 0.5) / math.sin(t), rel=1e-5)
    assert analytic.item() > 1.5


def test_sine_and_angle_are_exact_with_a_bounded_slope() -> None:
    c = torch.cat([INTERIOR.float(), torch.tensor([1.0, -1.0, 0.0])])
    known = c.double()
    for form, slow in ((sine_of, lambda c: (1 - c * c).sqrt()), (angle_of, torch.acos)):
        value, slope = with_gradient(form, c)
        torch.testing.assert_close(value.double(), slow(known), rtol=1e-6, atol=1e-7)
        assert slope.isfinite().all() and slope.abs().max() <= 1000
        inside = known.abs() < 1 - 1e-5
        _, expected = with_gradient(slow, known[inside])
        torch.testing.assert_close(slope[inside].double(), expected, rtol=1e-4, atol=1e-6)
    # The largest cosine below 1, where arc cosine and root would lose digits.
    near = torch.nextafter(torch.tensor(1.0), torch.tensor(0.0))
    assert angle_of(near).item() == pytest.approx(math.acos(near.item()), rel=1e-6)
    assert sine_of(near).item() == pytest.approx(math.sin(math.acos(near.item())), rel=1e-6)


def test_gradient_for_the_margin_matches_the_formula() -> None:
    """MagFace's margin depends on the length: d cos(t + m) / dm = -sin(t + m)."""
    t, m = torch.tensor([0.3, 1.2, 2.9]), torch.tensor([0.5, 0.5, 0.5], requires_grad=True)
    value = additive_angular_margin(torch.cos(t), m)
    grad = torch.autograd.grad(value.sum(), m)[0]
    # Beyond pi the score is cos t - m sin m.
    beyond = math.sin(0.5) + 0.5 * math.cos(0.5)
    expected = -torch.tensor([math.sin(0.8), math.sin(1.7), beyond])
    torch.testing.assert_close(grad, expected, rtol=1e-5, atol=1e-6)


def test_magnitude_margin_rises_and_its_penalty_is_convex() -> None:
    a = torch.linspace(5, 130, 2001)
    margin, penalty = magnitude_margin(a, (10, 110), (0.45, 0.8))
    inside = (a > 10) & (a < 110)
    known = a.double().clamp(10, 110)
    torch.testing.assert_close(margin.double(), 0.45 + (known - 10) / 100 * 0.35, rtol=1e-6, atol=0)
    torch.testing.assert_close(penalty.double(), 1 / known + known / 110**2, rtol=1e-6, atol=0)
    assert (margin.diff()[inside[1:]] > 0).all()
    # The penalty falls up to u, where its slope is 0, and is convex.
    g = 1 / known + known / 110**2
    g = g[inside]
    assert (g.diff() < 0).all() and (g.diff().diff() > 0).all()


def test_length_outside_the_bounds_has_no_gradient() -> None:
    a = torch.tensor([5.0, 50.0, 200.0], requires_grad=True)
    margin, penalty = magnitude_margin(a, (10, 110), (0.45, 0.8))
    (grad_margin,) = torch.autograd.grad(margin.sum(), a, retain_graph=True)
    (grad_penalty,) = torch.autograd.grad(penalty.sum(), a)
    assert grad_margin.tolist() == pytest.approx([0, 0.0035, 0], abs=1e-8)
    assert grad_penalty.tolist() == pytest.approx([0, -1 / 2500 + 1 / 12100, 0], rel=1e-5)


@pytest.mark.parametrize('norm', [0.0, 1e-30, 1e30, math.inf])
def test_magnitude_margin_is_finite_for_any_length(norm: float) -> None:
    a = torch.tensor([norm], requires_grad=True)
    margin, penalty = magnitude_margin(a, (10, 110), (0.45, 0.8))
    (margin + penalty).backward()
    assert margin.isfinite() and penalty.isfinite() and a.grad is not None and a.grad.isfinite()


def test_magnitude_margin_of_half_precision_is_float32() -> None:
    a = torch.tensor([40.0], dtype=torch.float16)
    margin, penalty = magnitude_margin(a, (10, 110), (0.45, 0.8))
    assert margin.item() == pytest.approx(0.555) and penalty.dtype == torch.float32
