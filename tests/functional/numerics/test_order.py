"""Places and orders of values are those that PyTorch's own functions give."""

from __future__ import annotations

import pytest
import torch

from mmdet_ext.functional.numerics.order import descending_order, places_of, sorted_whole


@pytest.mark.parametrize('share', [0.0, 0.3, 1.0])
@pytest.mark.parametrize('size', [0, 1, 1000])
def test_places_of_a_mask(size: int, share: float) -> None:
    mask = torch.rand(size, generator=torch.Generator().manual_seed(0)) < share
    assert places_of(mask).equal(mask.nonzero()[:, 0])


def test_places_of_a_strided_mask() -> None:
    mask = (torch.arange(12) % 3 == 0).view(6, 2)[:, 0]
    assert places_of(mask).equal(mask.nonzero()[:, 0])


@pytest.mark.parametrize('size', [0, 1, 1000])
@pytest.mark.parametrize('most', [1, 7, 2**31 - 1])
def test_whole_numbers_are_sorted_stably(size: int, most: int) -> None:
    generator = torch.Generator().manual_seed(size)
    values = torch.randint(-most, most, (size,), generator=generator, dtype=torch.int32)
    before = values.clone()
    ordered, places = sorted_whole(values)
    wanted = values.sort(stable=True)
    assert ordered.dtype == torch.int32
    assert ordered.equal(wanted[0])
    assert places.equal(wanted[1])
    assert values.equal(before)


def test_whole_numbers_at_their_ends() -> None:
    values = torch.tensor([2**31 - 1, -(2**31), 0, -1, 2**31 - 1], dtype=torch.int32)
    ordered, places = sorted_whole(values)
    assert places.tolist() == [1, 3, 2, 0, 4]
    assert ordered.tolist() == [-(2**31), -1, 0, 2**31 - 1, 2**31 - 1]


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('ties', [False, True])
def test_descending_order_is_that_of_a_stable_sort(dtype: torch.dtype, ties: bool) -> None:
    values = torch.randn(2000, generator=torch.Generator().manual_seed(0), dtype=dtype)
    if ties:
        values = (values * 3).round()  # has 0 and -0
    before = values.clone()
    assert descending_order(values).equal(values.argsort(descending=True, stable=True))
    assert values.equal(before)


def test_descending_order_of_extremes() -> None:
    info = torch.finfo(torch.float32)
    values = [0.0, -0.0, info.tiny, -info.tiny, 1e-45, -1e-45, info.max, info.min]
    tensor = torch.tensor([*values, torch.inf, -torch.inf, 1.0, -1.0])
    assert descending_order(tensor).equal(tensor.argsort(descending=True, stable=True))
