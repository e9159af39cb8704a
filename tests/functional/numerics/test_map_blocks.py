"""Blocks of maps: they cover a map once, and values and gradients do not depend on them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmdet_ext.functional.numerics import map_blocks
from mmdet_ext.functional.numerics.map_blocks import blocks_of_map, by_map_blocks, is_map
from tests._helpers.tolerances import assert_equal_but_rounding


def cubes(x: Tensor, weight: Tensor, wanted: bool) -> tuple[Tensor, Tensor | None]:
    """Return weighted cubes per element, and their derivative."""
    weight = weight.unsqueeze(1)
    return weight * x**3, 3 * weight * x**2 if wanted else None


def sums(x: Tensor, weight: Tensor, wanted: bool) -> tuple[Tensor, Tensor | None]:
    """Return weighted sums of squares per pixel, and their derivative."""
    return weight * x.square().sum(1), 2 * weight.unsqueeze(1) * x if wanted else None


@pytest.mark.parametrize('elements', [1, 5, 24, 50, 10_000])
@pytest.mark.parametrize('shape', [(3, 4, 6), (1, 4, 50), (5, 1, 1)], ids=str)
def test_blocks_cover_a_map_once(
    elements: int, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(map_blocks, 'CPU_BLOCK_ELEMENTS', elements)
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 1)
    counts = torch.zeros(shape)
    for block in blocks_of_map(counts):
        part = block.of(counts)
        assert part.numel() <= max(elements, shape[1])
        part += 1
    assert torch.equal(counts, torch.ones(shape))


@pytest.mark.parametrize('kernel', [cubes, sums])
@pytest.mark.parametrize('elements', [1, 24, 10_000])
def test_values_and_gradients_equal_autograd(
    kernel: object, elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(map_blocks, 'CPU_BLOCK_ELEMENTS', elements)
    generator = torch.Generator().manual_seed(0)
    pred = torch.randn(2, 3, 4, 5, generator=generator)
    weight = torch.rand(2, 4, 5, generator=generator)
    upstream = torch.randn(pred.shape if kernel is cubes else weight.shape, generator=generator)
    plain = pred.clone().requires_grad_()
    expected = kernel(plain, weight, wanted=False)[0]  # type: ignore[operator]
    (slope,) = torch.autograd.grad((expected * upstream).sum(), plain)
    leaf = pred.clone().requires_grad_()
    value = by_map_blocks(kernel, leaf, weight)  # type: ignore[arg-type]
    for _ in range(2):  # one graph can be used twice
        (found,) = torch.autograd.grad((value * upstream).sum(), leaf, retain_graph=True)
        assert_equal_but_rounding(found, slope, scale=10)
    assert_equal_but_rounding(value.detach(), expected.detach(), scale=10)


def test_half_precision_is_widened_by_blocks_and_the_gradient_is_half() -> None:
    pred = torch.full((1, 1, 3), 300.0, dtype=torch.float16, requires_grad=True)
    value = by_map_blocks(cubes, pred, torch.full((1, 3), 1e-3))
    assert value.dtype == torch.float32 and torch.allclose(value, torch.tensor(27_000.0))
    value.sum().backward()
    assert pred.grad is not None and pred.grad.dtype == torch.float16
    assert pred.grad.flatten().tolist() == [270.0] * 3


def test_rows_and_maps_without_elements_are_no_maps() -> None:
    assert is_map(torch.zeros(1, 2, 3)) and is_map(torch.zeros(1, 2, 3, 4))
    assert not is_map(torch.zeros(5, 2)) and not is_map(torch.zeros(0, 2, 3))
