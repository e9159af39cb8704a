"""Values with a derivative, which are not copied and may be written into."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mmdet_ext.functional.classification.cross_entropy import (
    binary_cross_entropy_loss,
    cross_entropy_loss,
)
from mmdet_ext.functional.classification.distribution import distribution_focal_loss
from mmdet_ext.functional.classification.equalized_focal import equalized_focal_loss
from mmdet_ext.functional.classification.focal import focal_loss
from mmdet_ext.functional.classification.quality import (
    quality_focal_loss,
    slide_loss,
    varifocal_loss,
)
from mmdet_ext.functional.numerics.derivative import with_derivative

LABEL, SCORE = torch.tensor([0, 1, 1]), torch.tensor([[0.2, 0.0], [0.0, 1.0], [0.0, 0.5]])
LOSSES: dict[str, Callable[[Tensor], Tensor]] = {
    'focal': lambda x: focal_loss(x, LABEL),
    'softmax focal': lambda x: focal_loss(x, LABEL, use_sigmoid=False),
    'cross entropy': lambda x: cross_entropy_loss(x, LABEL),
    'binary cross entropy': lambda x: binary_cross_entropy_loss(x, SCORE),
    'quality': lambda x: quality_focal_loss(x, SCORE),
    'varifocal': lambda x: varifocal_loss(x, SCORE),
    'slide': lambda x: slide_loss(x, SCORE),
    'distribution': lambda x: distribution_focal_loss(x, SCORE[:, 0]),
    'equalized': lambda x: equalized_focal_loss(x, LABEL, [1.0, 0.5]),
}


def logits() -> Tensor:
    return torch.randn(3, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()


@pytest.mark.parametrize('loss', LOSSES.values(), ids=LOSSES)
def test_results_may_be_written_into(loss: Callable[[Tensor], Tensor]) -> None:
    """Callers may drop or weight rows in place."""
    pred = logits()
    expected, plain = loss(pred), loss(pred)
    (slope,) = torch.autograd.grad(plain.sum(), pred)
    value = loss(pred)
    value[0] = 0
    value[1] *= 3
    torch.testing.assert_close(
        value[1:], expected[1:] * torch.tensor([3.0, 1.0]).reshape(-1, *(1,) * (value.dim() - 1))
    )
    (found,) = torch.autograd.grad(value.sum(), pred)
    torch.testing.assert_close(found, slope * torch.tensor([[0.0], [3.0], [1.0]]))


def squared(x: Tensor) -> Tensor:
    with torch.no_grad():
        value, slope = x * x, 2 * x
    return with_derivative(x, value, slope)


def first_left_out(x: Tensor) -> Tensor:
    value = squared(x)
    value[0] = 0
    return value


@pytest.mark.parametrize(
    'backend', ['aot_eager', pytest.param('inductor', marks=pytest.mark.subprocess)]
)
def test_written_into_inside_and_outside_of_a_compiled_function(backend: str) -> None:
    for function, outside in ((first_left_out, False), (squared, True)):
        x = torch.tensor([3.0, 5.0], requires_grad=True)
        value = torch.compile(function, fullgraph=True, backend=backend)(x)
        if outside:
            value[0] = 0
        value.sum().backward()
        assert value.tolist() == [0.0, 25.0] and x.grad.tolist() == [0.0, 10.0]


def test_the_value_is_not_copied() -> None:
    x = torch.tensor([3.0], requires_grad=True)
    value = torch.tensor([9.0])
    assert with_derivative(x, value, torch.tensor([6.0])).data_ptr() == value.data_ptr()
    assert not value.requires_grad
