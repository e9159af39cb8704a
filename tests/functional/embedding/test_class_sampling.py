"""Draws of classes: the classes of the labels, and others that are equally likely."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmdet_ext.functional.embedding import draw_by_key, draw_classes, mixed


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def slow_draw(
    labels: list[int], num_classes: int, count: int, generator: torch.Generator
) -> tuple[list[int], list[int]]:
    """Take the classes of the labels, then others by their random numbers, the largest first."""
    keys = torch.rand(num_classes, generator=generator, dtype=torch.float64).tolist()
    chosen = set(labels)
    for number in sorted(range(num_classes), key=lambda c: -keys[c]):
        if len(chosen) < count:
            chosen.add(number)
    classes = sorted(chosen)
    return classes, [classes.index(label) for label in labels]


@pytest.mark.parametrize(
    ('labels', 'count'),
    [
        ([3, 9, 3, 0], 5),
        ([3, 9, 3, 0], 3),
        ([3, 9, 3, 0], 2),
        ([3, 9, 3, 0], 1),
        ([5] * 6, 2),
        ([], 4),
        (list(range(11)), 3),
        ([2], 11),
        ([2], 50),
    ],
)
@pytest.mark.parametrize('dtype', [torch.int64, torch.uint8], ids=str)
def test_draws_equal_those_of_a_loop(labels: list[int], count: int, dtype: torch.dtype) -> None:
    for seed in range(5):
        given = torch.tensor(labels, dtype=dtype)
        classes, places = draw_classes(given, 11, count, seeded(seed))
        expected = slow_draw(labels, 11, count, seeded(seed))
        assert (classes.tolist(), places.tolist()) == expected
        assert classes.dtype == places.dtype == torch.int64
        assert classes[places].tolist() == labels


def test_other_classes_are_equally_likely() -> None:
    generator, labels = seeded(), torch.tensor([4, 4])
    drawn = torch.zeros(10)
    for _ in range(2000):
        drawn[draw_classes(labels, 10, 4, generator)[0]] += 1
    assert drawn[4] == 2000
    # Each of nine others is one of three drawn: 667 times, with a standard deviation of 21.
    others: Tensor = drawn[drawn < 2000]
    assert len(others) == 9 and ((others - 2000 / 3).abs() < 5 * 21.1).all()


@pytest.mark.parametrize(
    ('labels', 'classes', 'count', 'message'),
    [
        ([0], 3, 0, 'count must be at least 1, got 0'),
        ([0], 0, 2, 'num_classes must be at least 1'),
        ([[0]], 3, 2, r'labels must be integers, \(N,\), got \(1, 1\)'),
        ([0.5], 3, 2, r'labels must be integers, \(N,\), got \(1,\) of torch.float32'),
        ([0, 3], 3, 2, 'labels must be from 0 to 2 for 3 classes, got values from 0 to 3'),
        ([-1, 2], 3, 2, 'labels must be from 0 to 2 for 3 classes, got values from -1 to 2'),
    ],
)
def test_what_does_not_fit_is_refused(
    labels: list[int], classes: int, count: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        draw_classes(torch.tensor(labels), classes, count, seeded())


def slow_key(key: int, number: int) -> float:
    """Return splitmix64 of a class as a share of 2^64, in Python's whole numbers."""
    x = (mixed(key) + number * 0x9E3779B97F4A7C15) % 2**64
    x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) % 2**64
    x = ((x ^ x >> 27) * 0x94D049BB133111EB) % 2**64
    return (x ^ x >> 31) / 2**64


@pytest.mark.parametrize('rate', [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize('first, stop', [(0, 300), (120, 300), (120, 120), (299, 300)])
def test_a_class_is_drawn_by_its_key_or_by_a_label(rate: float, first: int, stop: int) -> None:
    labels = torch.tensor([7, 299, 7, 130, 0])
    classes, places = draw_by_key(labels, first, stop, rate, key=9)
    expected = [
        number
        for number in range(first, stop)
        if number in labels.tolist() or slow_key(9, number) < rate
    ]
    assert (classes + first).tolist() == expected
    assert places.tolist() == [
        expected.index(label) if first <= label < stop else -1 for label in labels.tolist()
    ]


def test_keys_are_equally_likely_and_independent() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    drawn = torch.zeros(200, 1000)
    for key in range(200):
        drawn[key, draw_by_key(none, 0, 1000, 0.1, key)[0]] = 1
    # Means of 200,000, 1,000 and 200 draws lie within five deviations of the rate.
    assert abs(float(drawn.mean()) - 0.1) < 5 * 0.3 / 200_000**0.5
    assert float((drawn.mean(1) - 0.1).abs().max()) < 5 * 0.3 / 1000**0.5
    assert float((drawn.mean(0) - 0.1).abs().max()) < 5 * 0.3 / 200**0.5
    both = (drawn[1:] * drawn[:-1]).mean()
    assert abs(float(both) - 0.01) < 5 * 0.1 / 199_000**0.5


def test_a_rate_outside_0_and_1_is_refused() -> None:
    with pytest.raises(ValueError, match='rate must be'):
        draw_by_key(torch.tensor([0]), 0, 3, 1.5, key=0)


def test_mixed_seeds_are_of_63_bits_and_differ() -> None:
    seeds = {mixed(seed, block) for seed in (0, 1, 2**64 - 1, -3) for block in range(500)}
    assert len(seeds) == 2000 and all(0 <= seed < 2**63 for seed in seeds)
