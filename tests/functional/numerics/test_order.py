"""Places and orders of values are those that PyTorch's own functions give."""

from __future__ import annotations

import pytest
import torch

from mmdet_ext.functional.numerics.order import (
    columns_of,
    counts_up_to,
    descending_order,
    places_of,
    repeated,
    sorted_whole,
    where_at_least,
    where_at_most,
)


@pytest.mark.parametrize('share', [0.0, 0.3, 1.0])
@pytest.mark.parametrize('size', [0, 1, 1000])
def test_places_of_a_mask(size: int, share: float) -> None:
    mask = torch.rand(size, generator=torch.Generator().manual_seed(0)) < share
    assert places_of(mask).equal(mask.nonzero()[:, 0])


def test_places_of_a_strided_mask() -> None:
    mask = (torch.arange(12) % 3 == 0).view(6, 2)[:, 0]
    assert places_of(mask).equal(mask.nonzero()[:, 0])


def test_comparisons_are_false_for_nan() -> None:
    values = torch.tensor([0.1, 0.3, 0.5, torch.nan, torch.inf])
    assert where_at_least(values, 0.3).tolist() == [False, True, True, False, True]
    others = torch.tensor([0.1, 0.2, 0.6, torch.nan, torch.inf])
    assert where_at_most(values, others).tolist() == [True, False, True, False, True]
    assert where_at_most(values[:0], others[:0]).tolist() == []


def test_values_are_repeated() -> None:
    counts = torch.tensor([0, 3, 1, 0, 2], dtype=torch.int32)
    values = torch.arange(5.0)
    assert repeated(values, counts, 6).equal(values.repeat_interleave(counts))
    assert repeated(values[:0], counts[:0], 0).shape == (0,)


@pytest.mark.parametrize('shape', [(0, 4), (7, 4), (3, 2, 4)])
def test_columns_are_contiguous(shape: tuple[int, ...]) -> None:
    table = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    columns = columns_of(table)
    assert columns.is_contiguous() and columns.equal(table.movedim(-1, 0))
    assert columns_of(table.flip(0)).equal(columns.flip(1))


@pytest.mark.parametrize('most', [1, 50, 10**6, 2**31 - 2])
@pytest.mark.parametrize('size', [1, 10, 1000])
def test_counts_are_those_of_a_search_or_a_few_more(size: int, most: int) -> None:
    generator = torch.Generator().manual_seed(size)
    ordered = torch.randint(most, (size,), generator=generator, dtype=torch.int32).sort()[0]
    values = torch.randint(most, (100,), generator=generator, dtype=torch.int32)
    counts = counts_up_to(ordered, values)
    assert counts.dtype == torch.int32
    assert (counts >= torch.searchsorted(ordered, values, right=True)).all()
    # The last number of a step as wide as is allowed.
    wide = values.long() + int(ordered[-1]) // (4 * size)
    assert (counts <= torch.searchsorted(ordered.long(), wide, right=True)).all()
    assert counts_up_to(ordered[:0], values).tolist() == [0] * 100


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
