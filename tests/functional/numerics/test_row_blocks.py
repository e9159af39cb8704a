"""Blocks of rows, which give the same result as one block."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmdet_ext.functional.numerics import row_blocks
from mmdet_ext.functional.numerics.row_blocks import by_row_blocks
from tests._helpers.tolerances import assert_equal_but_rounding


def row_sums(x: Tensor, factor: Tensor, wanted: bool) -> tuple[Tensor, Tensor | None]:
    """Compute factor * sum of x^2, one value per row."""
    derivative = 2 * factor.unsqueeze(1) * x
    return factor * x.square().sum(1), derivative if wanted else None


def products(x: Tensor, other: Tensor, wanted: bool) -> tuple[Tensor, Tensor | None]:
    """Compute x * other, one value per element."""
    return x * other, other.clone() if wanted else None


@pytest.mark.parametrize('rows', [0, 1, 5, 6, 7, 23])
@pytest.mark.parametrize('elements', [1, 9, 27, 10_000])
def test_blocks_of_any_size_give_the_same(
    monkeypatch: pytest.MonkeyPatch, rows: int, elements: int
) -> None:
    monkeypatch.setattr(row_blocks, 'CPU_BLOCK_ELEMENTS', elements)
    pred = torch.randn(rows, 9, requires_grad=True)
    factor, other = torch.rand(rows), torch.rand(rows, 9)
    value = by_row_blocks(row_sums, pred, factor)
    assert_equal_but_rounding(value, factor * pred.square().sum(1))
    (gradient,) = torch.autograd.grad(value.sum(), pred)
    assert torch.equal(gradient, 2 * factor[:, None] * pred)
    value = by_row_blocks(products, pred, other)
    assert torch.equal(value, pred * other)
    (gradient,) = torch.autograd.grad(value, pred, 2 * other)
    assert torch.equal(gradient, 2 * other * other)


def test_the_kernel_sees_blocks_and_no_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_blocks, 'CPU_BLOCK_ELEMENTS', 20)
    seen = []

    def kernel(x: Tensor, factor: Tensor, wanted: bool) -> tuple[Tensor, Tensor | None]:
        seen.append((len(x), wanted, x.requires_grad or torch.is_grad_enabled()))
        return row_sums(x, factor, wanted)

    factor = torch.ones(5)
    by_row_blocks(kernel, torch.ones(5, 10, requires_grad=True), factor)
    assert seen == [(2, True, False), (2, True, False), (1, True, False)]
    seen.clear()
    assert not by_row_blocks(kernel, torch.ones(5, 10), factor).requires_grad
    assert seen == [(2, False, False), (2, False, False), (1, False, False)]


def test_leading_dimensions_and_strides_do_not_matter() -> None:
    pred = torch.randn(2, 9, 3, requires_grad=True)
    factor = torch.rand(3, 2).T
    value = by_row_blocks(row_sums, pred.movedim(1, 2), factor)
    torch.testing.assert_close(value, factor * pred.square().sum(1))
    (gradient,) = torch.autograd.grad(value.sum(), pred)
    torch.testing.assert_close(gradient, 2 * factor[:, None] * pred)
    row = pred[0, :, 0].detach().requires_grad_()
    value = by_row_blocks(row_sums, row, torch.tensor(2.0))
    torch.testing.assert_close(value, 2 * row.square().sum())
    value.backward()
    torch.testing.assert_close(row.grad, 4 * row)
