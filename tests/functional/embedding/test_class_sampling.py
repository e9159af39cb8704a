"""Draws of classes: the classes of the labels, and others that are equally likely."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmdet_ext.functional.embedding import draw_classes


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
