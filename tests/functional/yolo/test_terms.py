"""Terms of YOLOv3's and YOLOv4's losses: values by hand, bounds, slopes and messages."""

from __future__ import annotations

import math

import pytest
import torch

from mmdet_ext.functional.yolo.terms import bounded_log_side, objectness_weight, size_weight


@pytest.mark.parametrize(
    ('sides', 'weight'),
    [
        ((0.0, 0.0), 2.0),
        ((100.0, 0.0), 2.0),
        ((50.0, 40.0), 1.5),
        ((25.0, 10.0), 2 - 1 / 16),
        ((100.0, 40.0), 1.0),
        ((300.0, 20.0), 1.5),  # a side counts as no longer than the image's
        ((-5.0, 20.0), 2.0),
    ],
)
def test_size_weight_by_hand(sides: tuple[float, float], weight: float) -> None:
    found = size_weight(torch.tensor(sides), torch.tensor((100.0, 40.0)))
    assert found.item() == pytest.approx(weight, rel=1e-6)


def test_size_weight_of_each_image_and_in_half_precision() -> None:
    sides = torch.tensor([[[50.0, 50.0], [100.0, 100.0]], [[50.0, 50.0], [100.0, 100.0]]])
    image_sides = torch.tensor([[[100.0, 100.0]], [[200.0, 200.0]]])
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        found = size_weight(sides.to(dtype), image_sides.to(dtype))
        assert found.dtype == torch.float32
        assert found.tolist() == [[1.75, 1.0], [2 - 1 / 16, 1.75]]


def test_objectness_weight_by_hand() -> None:
    positive = torch.tensor([[True, False, False, True]])
    background = torch.tensor([[0, 1, 0, 1]])  # as a host may give it; a box comes first
    assert objectness_weight(positive, background, 0.25).tolist() == [[1.0, 0.25, 0.0, 1.0]]
    assert objectness_weight(positive, background).tolist() == [[1.0, 1.0, 0.0, 1.0]]
    assert objectness_weight(positive, background, 0).tolist() == [[1.0, 0.0, 0.0, 1.0]]


@pytest.mark.parametrize('value', [-0.1, math.nan, math.inf, '1'])
def test_a_wrong_weight_of_the_background_is_named(value: object) -> None:
    mask = torch.tensor([True])
    with pytest.raises(ValueError, match='lambda_noobj must be at least 0 and finite, got'):
        objectness_weight(mask, mask, value)  # type: ignore[arg-type]


def test_a_side_is_the_exponential_and_then_its_tangent() -> None:
    logs = torch.tensor([-20.0, -1.0, 0.0, 3.0, 9.5, 10.0, 11.0, 60.0], dtype=torch.float64)
    sides = bounded_log_side(logs).exp()
    expected = [
        math.exp(log) if log <= 10 else math.exp(10) * (1 + log - 10) for log in logs.tolist()
    ]
    torch.testing.assert_close(
        sides, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0
    )


def test_the_slope_of_a_side_is_that_of_the_exponential_and_then_constant() -> None:
    logs = torch.tensor([-2.0, 0.0, 10.0, 12.0, 500.0], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(bounded_log_side(logs).exp().sum(), logs)
    top = math.exp(10)
    expected = torch.tensor([math.exp(-2), 1.0, top, top, top], dtype=torch.float64)
    torch.testing.assert_close(slope, expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32])
def test_every_finite_logarithm_has_a_finite_side_and_gradient(dtype: torch.dtype) -> None:
    logs = torch.tensor([-6e4, -100.0, 88.8, 6e4], dtype=dtype, requires_grad=True)
    sides = bounded_log_side(logs).exp()
    (slope,) = torch.autograd.grad(sides.sum(), logs)
    assert sides.dtype == torch.float32 and sides.isfinite().all() and slope.isfinite().all()
    assert sides[0] == 0 and sides[3] > sides[2] > 1e6


def test_a_logarithm_that_is_no_number_is_not_hidden() -> None:
    assert bounded_log_side(torch.tensor([math.nan])).isnan().all()
