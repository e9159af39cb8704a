"""Contract of every registered loss of heatmaps, tags and part affinity fields."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mmdet_ext.catalog.case import Case
from mmdet_ext.catalog.cases import cases_of
from mmdet_ext.registry import MODELS
from tests._helpers.options import assert_misspelt_options_are_named

EVERY = pytest.mark.parametrize('case', cases_of('keypoint loss'), ids=repr)


def build(case: Case, **options: Any) -> Any:
    return MODELS.build({'type': f'mmdet_ext.{case.name}', **case.options, **options})


def converted(values: Any, dtype: torch.dtype) -> Any:
    """Convert the floating tensors among values, also within lists."""
    if isinstance(values, Tensor):
        return values.to(dtype) if values.is_floating_point() else values
    return type(values)(converted(each, dtype) for each in values)


def inputs(case: Case, people: int = 3, dtype: torch.dtype = torch.float32) -> tuple[Any, ...]:
    values: tuple[Any, ...] = case.inputs(torch.Generator().manual_seed(0), people)
    return converted(values, dtype)


def total(loss: Any, *values: Any) -> Tensor:
    """Return the sum of the parts of a loss."""
    found = loss(*values)
    return found if isinstance(found, Tensor) else torch.stack(list(found)).sum()


def with_gradient(case: Case, values: tuple[Any, ...]) -> tuple[Tensor, Tensor]:
    leaf = values[0].clone().requires_grad_()
    value = total(build(case), leaf, *values[1:])
    (gradient,) = torch.autograd.grad(value, leaf)
    return value.detach(), gradient


@EVERY
@pytest.mark.parametrize('people', [0, 1, 3])
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_value_and_gradient_are_finite_in_any_precision(
    case: Case, people: int, dtype: torch.dtype
) -> None:
    values = inputs(case, people, dtype)
    value, gradient = with_gradient(case, values)
    assert value.dtype == torch.float32 and gradient.dtype == dtype
    assert value.isfinite() and gradient.isfinite().all()
    expected, _ = with_gradient(case, converted(values, torch.float32))
    torch.testing.assert_close(value, expected)


@EVERY
def test_the_gradient_by_finite_differences(case: Case) -> None:
    values = inputs(case, dtype=torch.float64)
    leaf = values[0].clone().requires_grad_()
    loss = build(case)
    assert torch.autograd.gradcheck(lambda each: total(loss, each, *values[1:]), leaf)


@EVERY
def test_no_images_cost_zero_with_a_graph(case: Case) -> None:
    values = [each[:0] for each in inputs(case)]
    value, gradient = with_gradient(case, tuple(values))
    assert value == 0 and gradient.shape == values[0].shape


@EVERY
def test_a_misspelt_option_is_named_and_the_repr_shows_the_options(case: Case) -> None:
    cls = MODELS.get(f'mmdet_ext.{case.name}')
    assert_misspelt_options_are_named(lambda **more: build(case, **more), cls)
    assert '=' in repr(build(case))
