"""Anchors by k-means: slow reference, empty clusters, determinism, degenerate boxes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmdet_ext.functional.numerics import chunks
from mmdet_ext.functional.yolo import anchors
from mmdet_ext.functional.yolo.anchors import anchor_fit, kmeans_anchors


def boxes(count: int = 300, seed: int = 0) -> Tensor:
    """Draw boxes around three shapes."""
    generator = torch.Generator().manual_seed(seed)
    shapes = torch.tensor([[20.0, 20.0], [90.0, 40.0], [50.0, 160.0]])
    noise = torch.randn(count, 2, generator=generator).mul(0.15).exp()
    return shapes[torch.randint(3, (count,), generator=generator)] * noise


def iou(one: list[float], other: list[float]) -> float:
    shared = min(one[0], other[0]) * min(one[1], other[1])
    return shared / (one[0] * one[1] + other[0] * other[1] - shared)


def slow_fit(sides: Tensor, centers: Tensor) -> tuple[float, list[int]]:
    """Compute the mean of the best IoU, and the first best centre of each box, box by box."""
    best = []
    for box in sides.tolist():
        overlaps = [iou(box, center) for center in centers.tolist()]
        best.append((max(overlaps), overlaps.index(max(overlaps))))
    return sum(value for value, _ in best) / len(best), [index for _, index in best]


@pytest.mark.parametrize('k', [1, 2, 3, 7])
def test_the_fit_equals_a_loop_over_boxes(k: int) -> None:
    sides = boxes()
    fit = kmeans_anchors(sides, k)
    mean, joined = slow_fit(sides, fit.anchors)
    assert fit.mean_iou == pytest.approx(mean, rel=1e-6)
    assert fit.counts.tolist() == [joined.count(index) for index in range(k)]
    assert fit.anchors.prod(1).tolist() == sorted(fit.anchors.prod(1).tolist())
    assert sum(fit.counts.tolist()) == len(sides) and min(fit.counts.tolist()) > 0


def test_three_shapes_are_found() -> None:
    fit = kmeans_anchors(boxes(), 3)
    expected = torch.tensor([[20.0, 20.0], [90.0, 40.0], [50.0, 160.0]], dtype=torch.float64)
    torch.testing.assert_close(fit.anchors, expected, rtol=0.08, atol=0)
    assert fit.mean_iou > 0.75


def test_a_centre_is_the_mean_of_its_boxes() -> None:
    sides = boxes()
    fit = kmeans_anchors(sides, 3)
    _, joined = slow_fit(sides, fit.anchors)
    for index in range(3):
        own = sides[torch.tensor(joined) == index].double().mean(0)
        torch.testing.assert_close(fit.anchors[index], own)


def test_more_anchors_fit_better() -> None:
    fits = [kmeans_anchors(boxes(), k).mean_iou for k in (1, 2, 3, 6, 12)]
    assert fits == sorted(fits)


def test_the_seed_decides_and_a_repeat_is_equal() -> None:
    sides = boxes(60)
    one, again = kmeans_anchors(sides, 5, seed=1), kmeans_anchors(sides, 5, seed=1)
    assert torch.equal(one.anchors, again.anchors) and one.mean_iou == again.mean_iou
    others = {kmeans_anchors(sides, 5, seed=seed).mean_iou for seed in range(6)}
    assert len(others) > 1


def test_the_unit_does_not_matter() -> None:
    one, other = kmeans_anchors(boxes(), 4), kmeans_anchors(boxes() * 1024, 4)
    torch.testing.assert_close(one.anchors * 1024, other.anchors)
    assert one.mean_iou == pytest.approx(other.mean_iou)


def test_as_many_anchors_as_boxes_fit_perfectly() -> None:
    sides = torch.tensor([[3.0, 4.0], [5.0, 5.0], [5.0, 5.0], [8.0, 2.0]])
    fit = kmeans_anchors(sides, 3)
    assert fit.mean_iou == 1 and sorted(fit.counts.tolist()) == [1, 1, 2]


def test_a_centre_without_boxes_moves_to_the_box_of_the_worst_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sides = torch.tensor([[10.0, 10.0], [11.0, 11.0], [60.0, 5.0]])
    # Two equal centres: the second gets no box.
    monkeypatch.setattr(anchors, '_first_centers', lambda sides, k, generator: sides[[0, 0]])
    fit = kmeans_anchors(sides, 2)
    torch.testing.assert_close(fit.anchors[0], torch.tensor([10.5, 10.5], dtype=torch.float64))
    assert fit.anchors[1].tolist() == [60, 5] and fit.counts.tolist() == [2, 1]


def test_chunks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = kmeans_anchors(boxes(), 4)
    monkeypatch.setattr(chunks, 'TABLE_ELEMENTS', 50)
    assert torch.equal(kmeans_anchors(boxes(), 4).anchors, whole.anchors)


def test_given_anchors_are_measured() -> None:
    fit = anchor_fit(torch.tensor([[2.0, 2.0], [4.0, 4.0]]), torch.tensor([[4.0, 4.0], [2.0, 1.0]]))
    assert fit.anchors.tolist() == [[2, 1], [4, 4]]
    assert fit.counts.tolist() == [1, 1] and fit.mean_iou == 0.75


@pytest.mark.parametrize(
    ('sides', 'k', 'message'),
    [
        (torch.ones(4, 2), 2, 'k must be at most 1, the number of different boxes among the 4'),
        (torch.ones(4, 2), 0, 'k must be at least 1, got 0'),
        (torch.ones(0, 2), 1, r'of shape \(N, 2\) with N above 0, got \(0, 2\)'),
        (torch.ones(4, 4), 1, r'of shape \(N, 2\) with N above 0, got \(4, 4\)'),
        (torch.tensor([[1.0, 1.0], [0.0, 2.0]]), 1, r'got 1 that are not.*sides\[1\] = \[0.0, 2'),
        (torch.tensor([[1.0, float('nan')]]), 1, 'must be above 0 and finite'),
    ],
)
def test_wrong_arguments_are_named(sides: Tensor, k: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kmeans_anchors(sides, k)
