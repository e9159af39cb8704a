"""Suppression of duplicates, against values by hand, loops in float64, mmcv and torchvision."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchvision.ops import batched_nms as torchvision_batched_nms

from mmdet_ext.catalog.memory import peak_bytes
from mmdet_ext.catalog.synthetic import random_boxes
from mmdet_ext.functional.boxes import _suppression_pairs, _suppression_rounds
from mmdet_ext.functional.boxes.suppression import batched_diou_nms, batched_soft_nms
from tests.functional.boxes.detections import SQUARE, detections, iou

METHODS = ('linear', 'gaussian', 'naive')


def diou(a: list[float], b: list[float]) -> float:
    """Compute an IoU minus the squared distance of the centres over that of the corners."""
    gap = sum(((a[k] + a[k + 2]) / 2 - (b[k] + b[k + 2]) / 2) ** 2 for k in (0, 1))
    corners = sum((max(a[k + 2], b[k + 2]) - min(a[k], b[k])) ** 2 for k in (0, 1))
    return iou(a, b) - (gap / corners if corners else 0.0)


def suppress(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    weigh: Callable[[list[float], list[float]], float],
    min_score: float,
) -> tuple[list[int], list[float]]:
    """Select the best of the remaining boxes, again and again, in loops over lists."""
    found = []
    for label in labels.unique().tolist():
        rest = {
            i: float(scores[i].double())
            for i in (labels == label).nonzero()[:, 0].tolist()
            if scores[i] >= min_score
        }
        while rest:
            best = min(rest, key=lambda i: (-rest[i], i))
            found.append((-rest.pop(best), best))
            for i in list(rest):
                rest[i] *= weigh(boxes[best].tolist(), boxes[i].tolist())
                if rest[i] < min_score:
                    del rest[i]
    found.sort()
    return [i for _, i in found], [-score for score, _ in found]


def rule(method: str, threshold: float, sigma: float) -> Callable[..., float]:
    """Return the factor of a soft-NMS."""

    def weigh(a: list[float], b: list[float]) -> float:
        overlap = iou(a, b)
        if method == 'gaussian':
            return math.exp(-(overlap**2) / sigma)
        if overlap < threshold:
            return 1.0
        return 1 - overlap if method == 'linear' else 0.0

    return weigh


def test_scores_by_hand() -> None:
    boxes = torch.tensor([SQUARE, [0.0, 0.0, 4.0, 2.0], [0.0, 2.0, 4.0, 5.0]])
    scores = torch.tensor([0.5, 0.9, 0.4])
    labels = torch.zeros(3, dtype=torch.int64)
    # Box 1 is the best, half of box 0 and apart from box 2. Box 0 shares 8 of 20 px with box 2.
    dets, keep = batched_soft_nms(boxes, scores, labels, iou_threshold=0.3)
    assert keep.tolist() == [1, 2, 0]
    torch.testing.assert_close(dets[:, 4], torch.tensor([0.9, 0.4, 0.5 * 0.5 * 0.6]))
    assert torch.equal(dets[:, :4], boxes[keep])
    dets, keep = batched_soft_nms(boxes, scores, labels, method='gaussian', sigma=0.5)
    half, part = math.exp(-0.5), math.exp(-0.32)
    assert keep.tolist() == [1, 2, 0]
    torch.testing.assert_close(dets[:, 4], torch.tensor([0.9, 0.4, 0.5 * half * part]))
    _, keep = batched_soft_nms(boxes, scores, labels, iou_threshold=0.45, method='naive')
    assert keep.tolist() == [1, 2]
    _, keep = batched_soft_nms(boxes, scores, labels, iou_threshold=0.55, method='naive')
    assert keep.tolist() == [1, 0, 2]


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('count', [1, 7, 60, 150])
def test_soft_nms_equals_loops(method: str, count: int) -> None:
    boxes, scores, labels = detections(count, count)
    dets, keep = batched_soft_nms(boxes, scores, labels, 0.4, 0.3, 0.02, method)
    index, lowered = suppress(boxes, scores, labels, rule(method, 0.4, 0.3), 0.02)
    assert keep.tolist() == index
    torch.testing.assert_close(dets[:, 4].double(), torch.tensor(lowered, dtype=torch.float64))
    assert torch.equal(dets[:, :4], boxes[keep])
    if count == 150:
        assert 0.02 < len(index) / count < 0.98
        assert (dets[:, 4] < scores[keep]).any() or method == 'naive'


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('offset', [0, 1])
def test_soft_nms_equals_mmcvs(method: str, offset: int) -> None:
    ops = pytest.importorskip('mmcv.ops', reason='mmcv has no operators')
    for seed in range(10):
        boxes, scores, labels = detections(seed, 300, classes=1, width=1333.0)
        options = dict(iou_threshold=0.3, sigma=0.5, min_score=1e-3, method=method, offset=offset)
        dets, keep = batched_soft_nms(boxes, scores, labels, **options)
        their_dets, their_keep = ops.soft_nms(boxes, scores, **options)
        assert keep.tolist() == their_keep.tolist()
        torch.testing.assert_close(dets, their_dets, rtol=0, atol=1e-6)


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('split', [10, 10_000])
def test_classes_equal_those_of_mmcvs_batched_nms(method: str, split: int) -> None:
    ops = pytest.importorskip('mmcv.ops', reason='mmcv has no operators')
    boxes, scores, labels = detections(1, 500, classes=7)
    dets, keep = batched_soft_nms(boxes, scores, labels, 0.3, method=method)
    # On quarters of a pixel, the shift of the classes rounds nothing.
    config = dict(type='soft_nms', iou_threshold=0.3, method=method, split_thr=split)
    their_dets, their_keep = ops.batched_nms(boxes, scores, labels, config)
    assert keep.tolist() == their_keep.tolist()
    torch.testing.assert_close(dets, their_dets, rtol=0, atol=1e-6)


def test_where_mmcvs_results_differ() -> None:
    ops = pytest.importorskip('mmcv.ops', reason='mmcv has no operators')
    flat = torch.tensor([[1.0, 2.0, 3.0, 2.0]] * 2)
    scores = torch.tensor([0.9, 0.7])
    lowered, _ = ops.soft_nms(flat, scores, method='gaussian')
    assert lowered[:, 4].isnan().tolist() == [False, True]
    assert torch.equal(batched_soft_nms(flat, scores, None, method='gaussian')[0][:, 4], scores)
    # The best box is kept whatever its score.
    assert ops.soft_nms(flat, scores / 1000, min_score=1e-3)[1].tolist() == [0]
    assert batched_soft_nms(flat, scores / 1000, None, min_score=1e-3)[1].tolist() == []


def test_naive_keeps_what_torchvision_keeps() -> None:
    boxes, scores, labels = detections(2, 400)
    dets, keep = batched_soft_nms(boxes, scores, labels, 0.4, min_score=0, method='naive')
    dets, keep = dets[dets[:, 4] > 0], keep[dets[:, 4] > 0]
    expected = torchvision_batched_nms(boxes, scores, labels, 0.4)
    assert keep.tolist() == expected.tolist() and 50 < len(keep) < 350
    assert torch.equal(dets[:, 4], scores[keep])


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('classes', [1, 5])
def test_chunks_and_missing_pairs_change_nothing(
    method: str, classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes, scores, labels = detections(3, 200, classes)
    dets, keep = batched_soft_nms(boxes, scores, labels, method=method)
    for name, module, value in (
        ('CHUNK_PAIRS', _suppression_pairs, 7),
        ('PAIRS_PER_BOX', _suppression_rounds, 0),
    ):
        monkeypatch.setattr(module, name, value)
        other_dets, other_keep = batched_soft_nms(boxes, scores, labels, method=method)
        assert other_keep.tolist() == keep.tolist()
        torch.testing.assert_close(other_dets, dets, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize('most', [0, 64])
def test_of_equal_scores_the_first_box_is_selected_first(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_suppression_rounds, 'PAIRS_PER_BOX', most)
    # A row of boxes, each half of which belongs to the next: IoU 1/3. The order of x is another.
    left = torch.tensor([4.0, 0.0, 2.0, 6.0])
    boxes = torch.stack([left, torch.zeros(4), left + 4, torch.full((4,), 4.0)], 1)
    scores = torch.full((4,), 0.9)
    dets, keep = batched_soft_nms(boxes, scores, None, iou_threshold=0.3)
    assert keep.tolist() == [0, 1, 3, 2]
    torch.testing.assert_close(dets[:, 4], torch.tensor([0.9, 0.9, 0.6, 0.4]))
    _, keep = batched_diou_nms(boxes, scores, None, 0.2)
    assert keep.tolist() == [0, 1]


@pytest.mark.parametrize('most', [0, 64])
def test_equal_boxes_leave_one(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_suppression_rounds, 'PAIRS_PER_BOX', most)
    boxes, scores = torch.tensor([SQUARE]).expand(50, 4), torch.full((50,), 0.7)
    for labels, left in ((None, [0]), (torch.arange(50) % 2, [0, 1])):
        for method in ('linear', 'naive'):
            assert batched_soft_nms(boxes, scores, labels, method=method)[1].tolist() == left
        assert batched_diou_nms(boxes, scores, labels, 1.0)[1].tolist() == left
    lowered = batched_soft_nms(boxes, scores, None, method='gaussian', min_score=0)[0][:, 4]
    torch.testing.assert_close(lowered, 0.7 * torch.exp(-2.0 * torch.arange(50)))


def test_classes_do_not_affect_each_other() -> None:
    boxes, scores, labels = detections(4, 200, classes=6)
    dets, keep = batched_soft_nms(boxes, scores, labels)
    for label in range(6):
        own = (labels == label).nonzero()[:, 0]
        alone_dets, alone = batched_soft_nms(boxes[own], scores[own], None)
        mine = labels[keep] == label
        assert own[alone].tolist() == keep[mine].tolist()
        torch.testing.assert_close(alone_dets, dets[mine], rtol=1e-6, atol=0)
    for values in (torch.tensor([-(2**62), -3, 0, 5, 10**12, 2**62]), torch.arange(6).int()):
        other_dets, other = batched_soft_nms(boxes, scores, values[labels])
        assert torch.equal(other, keep) and torch.equal(other_dets, dets)


@pytest.mark.parametrize('step', [1, 2, 1000, 2**16 - 1, 2**40])
@pytest.mark.parametrize('count', [2, 3, 10, 64])
def test_labels_far_apart_stay_apart(count: int, step: int) -> None:
    wide = torch.tensor([[0.0, 0.0, 1000.0, 4.0]]).expand(count, 4)
    scores = torch.linspace(0.9, 0.8, count)
    for labels in (step * torch.arange(count), step * (torch.arange(count) // 2)):
        dets, keep = batched_soft_nms(wide, scores, labels)
        assert torch.equal(dets[:, 4], scores[keep])
        assert len(keep) == len(labels.unique())
    # All labels but one are next to each other, and the last is far away.
    labels = torch.arange(count) + step
    labels[0] = 0
    assert len(batched_soft_nms(wide, scores, labels)[1]) == count


def test_order_of_boxes_does_not_matter() -> None:
    boxes, scores, labels = detections(5, 200)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    for suppression in (batched_soft_nms, batched_diou_nms):
        dets, keep = suppression(boxes, scores, labels)
        other_dets, other = suppression(boxes[order], scores[order], labels[order])
        assert order[other].tolist() == keep.tolist()
        torch.testing.assert_close(other_dets, dets, rtol=1e-6, atol=0)


@pytest.mark.parametrize('most', [0, 64])
def test_boxes_without_area_overlap_nothing(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_suppression_rounds, 'PAIRS_PER_BOX', most)
    flat = [1.0, 2.0, 3.0, 2.0]
    boxes, scores = torch.tensor([SQUARE, flat, flat, SQUARE]), torch.tensor([0.9, 0.8, 0.7, 0.6])
    for method in METHODS:
        dets, keep = batched_soft_nms(boxes, scores, None, method=method, min_score=0.2)
        assert keep.tolist() == [0, 1, 2] and dets.isfinite().all()
        assert torch.equal(dets[:, 4], scores[:3])
    assert batched_diou_nms(boxes, scores, None)[1].tolist() == [0, 1, 2]
    # With an offset, lines are one pixel high.
    assert batched_soft_nms(boxes[1:3], scores[1:3], None, offset=1)[1].tolist() == [0]


def test_tiny_boxes_overlap_as_large_ones_do() -> None:
    boxes, scores, labels = detections(6, 100)
    dets, keep = batched_soft_nms(boxes, scores, labels)
    small, same = batched_soft_nms(boxes * 2.0**-30, scores, labels)
    assert torch.equal(same, keep) and torch.equal(small[:, 4], dets[:, 4])


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_precisions(dtype: torch.dtype) -> None:
    boxes, scores, labels = detections(7, 100, width=1333.0)
    boxes, scores = (4 * boxes).to(dtype), scores.to(dtype)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    for suppression in (batched_soft_nms, batched_diou_nms):
        dets, keep = suppression(boxes, scores, labels)
        expected, same = suppression(boxes.to(wide), scores.to(wide), labels)
        assert dets.dtype == wide and dets.isfinite().all()
        assert torch.equal(dets, expected) and torch.equal(keep, same)


@pytest.mark.parametrize('most', [0, 64])
def test_the_smallest_sigma_removes_what_overlaps(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_suppression_rounds, 'PAIRS_PER_BOX', most)
    boxes = torch.tensor([SQUARE, [3.0, 3.0, 7.0, 7.0], [9.0, 9.0, 10.0, 10.0]])
    scores = torch.tensor([0.9, 0.8, 0.7])
    for sigma in (1e-30, 1e-300):
        dets, keep = batched_soft_nms(boxes, scores, None, sigma=sigma, method='gaussian')
        assert keep.tolist() == [0, 2] and torch.equal(dets[:, 4], scores[[0, 2]])


def test_no_boxes_and_no_scores_high_enough() -> None:
    empty = torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64)
    low = torch.tensor([SQUARE]), torch.tensor([1e-4]), None
    for dets, keep in (
        batched_soft_nms(*empty),
        batched_diou_nms(*empty),
        batched_soft_nms(*low),
    ):
        assert dets.shape == (0, 5) and keep.shape == (0,) and keep.dtype == torch.int64
    dets, keep = batched_diou_nms(torch.tensor([SQUARE]), torch.tensor([-3.0]), None)
    assert keep.tolist() == [0] and dets.tolist() == [[*SQUARE, -3.0]]


def test_results_have_no_graph_and_inputs_stay() -> None:
    boxes, scores, labels = detections(8, 50)
    copies = boxes.clone(), scores.clone()
    boxes.requires_grad_()
    scores.requires_grad_()
    for dets, _ in (
        batched_soft_nms(boxes, scores, labels),
        batched_diou_nms(boxes, scores, labels),
    ):
        assert not dets.requires_grad
    assert torch.equal(boxes, copies[0]) and torch.equal(scores, copies[1])


@pytest.mark.parametrize('count', [1, 80, 150])
@pytest.mark.parametrize('threshold', [0.1, 0.5, 1.0])
def test_diou_nms_equals_loops(count: int, threshold: float) -> None:
    boxes, scores, labels = detections(count + 1, count)
    dets, keep = batched_diou_nms(boxes, scores, labels, threshold)
    index, _ = suppress(
        boxes, scores, labels, lambda a, b: float(diou(a, b) < threshold), min_score=1e-9
    )
    assert keep.tolist() == index
    assert torch.equal(dets[:, 4], scores[keep])


def test_diou_nms_keeps_the_box_whose_centre_is_further_away() -> None:
    # Both share 8 of 16 px with the first; the centre of the strip is 1 px away, that of the
    # inner box is the same.
    side = math.sqrt(8)
    inner = [2 - side / 2, 2 - side / 2, 2 + side / 2, 2 + side / 2]
    boxes = torch.tensor([SQUARE, [0.0, 0.0, 4.0, 2.0], inner])
    _, keep = batched_diou_nms(boxes, torch.tensor([0.9, 0.8, 0.7]), None, 0.48)
    assert keep.tolist() == [0, 1]


def test_memory_is_bounded() -> None:
    generator = torch.Generator().manual_seed(0)
    boxes, scores = random_boxes(generator, 10_000, 1333.0, 800.0), torch.rand(10_000)
    labels = torch.randint(80, (10_000,), generator=generator)
    # A table of all pairs has 381 MiB.
    assert peak_bytes(lambda: batched_soft_nms(boxes, scores, labels)) < 24 * 2**20
    crowd = boxes[:1].expand(10_000, 4) + torch.rand(10_000, 4, generator=generator)
    assert peak_bytes(lambda: batched_soft_nms(crowd, scores, None)) < 64 * 2**20


@pytest.mark.parametrize('method', METHODS)
def test_products_by_logarithms_change_no_score(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes, scores, labels = detections(9, 400)
    dets, keep = batched_soft_nms(boxes, scores, labels, method=method, min_score=0)
    by_logarithms = _suppression_rounds.multiplied_by_logarithms
    monkeypatch.setattr(_suppression_rounds, 'multiplied', by_logarithms)
    other_dets, other = batched_soft_nms(boxes, scores, labels, method=method, min_score=0)
    assert torch.equal(other, keep)
    torch.testing.assert_close(other_dets, dets, rtol=1e-6, atol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='there is no GPU')
@pytest.mark.parametrize('method', METHODS)
def test_a_gpu_gives_the_same(method: str) -> None:
    boxes, scores, labels = detections(9, 400)
    dets, keep = batched_soft_nms(boxes, scores, labels, method=method)
    other_dets, other = batched_soft_nms(boxes.cuda(), scores.cuda(), labels.cuda(), method=method)
    assert other.is_cuda and other.tolist() == keep.tolist()
    torch.testing.assert_close(other_dets.cpu(), dets, rtol=0, atol=1e-6)


def test_an_overlap_equal_to_the_threshold_counts() -> None:
    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 2.0]])  # an IoU of 0.5
    scores = torch.tensor([0.8, 0.6])
    dets, _ = batched_soft_nms(boxes, scores, None, iou_threshold=0.5)
    torch.testing.assert_close(dets[:, 4], torch.tensor([0.8, 0.3]))
    _, keep = batched_soft_nms(boxes, scores, None, iou_threshold=0.5, method='naive')
    assert keep.tolist() == [0]
