"""Weighted boxes fusion, against values by hand and a loop over lists of clusters."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mmdet_ext.functional.boxes.suppression_fusion import weighted_box_fusion
from tests.functional.boxes.detections import SQUARE, detections, iou

CONFIDENT = torch.tensor([0.9, 0.3, 0.6])


def fuse(
    boxes: Tensor, scores: Tensor, labels: Tensor, threshold: float, models: int, rescaling: str
) -> list[tuple[float, list[float], list[int]]]:
    """Fuse boxes in the five steps of the paper, with lists of clusters."""
    found = []
    for label in labels.unique().tolist():
        own = (labels == label).nonzero()[:, 0].tolist()
        clusters: list[list[int]] = []
        means: list[list[float]] = []
        for i in sorted(own, key=lambda i: (-float(scores[i]), i)):
            overlaps = [iou(boxes[i].tolist(), mean) for mean in means]
            if overlaps and max(overlaps) > threshold:
                at = overlaps.index(max(overlaps))
                clusters[at].append(i)
            else:
                at = len(clusters)
                clusters.append([i])
                means.append([])
            weight = [float(scores[k].double()) for k in clusters[at]]
            means[at] = [
                sum(w * float(boxes[k, side]) for w, k in zip(weight, clusters[at], strict=True))
                / sum(weight)
                for side in range(4)
            ]
        for cluster, mean in zip(clusters, means, strict=True):
            total = len(cluster)
            score = sum(float(scores[k].double()) for k in cluster) / total
            share = min(total, models) if rescaling == 'capped' else total
            found.append((score * share / models, mean, cluster))
    return sorted(found, key=lambda each: -each[0])


def test_a_cluster_by_hand() -> None:
    boxes = torch.tensor([SQUARE, [0.0, 0.0, 4.0, 3.0], [9.0, 9.0, 11.0, 11.0]])
    fused = weighted_box_fusion(boxes, CONFIDENT, None, models=3)
    # The lower side is (0.9 * 4 + 0.3 * 3) / 1.2; two of three models found it, one the other.
    expected = torch.tensor([[0.0, 0.0, 4.0, 3.75, 0.6 * 2 / 3], [9.0, 9.0, 11.0, 11.0, 0.2]])
    torch.testing.assert_close(fused.dets, expected)
    assert fused.keep.tolist() == [0, 2] and fused.cluster.tolist() == [0, 0, 1]
    apart = weighted_box_fusion(boxes, CONFIDENT, torch.tensor([0, 1, 0]), models=1)
    assert apart.keep.tolist() == [0, 2, 1] and torch.equal(apart.dets[:, :4], boxes[[0, 2, 1]])
    torch.testing.assert_close(apart.dets[:, 4], CONFIDENT[[0, 2, 1]])


def test_more_boxes_than_models_gain_by_the_linear_rule_alone() -> None:
    boxes = torch.tensor([SQUARE] * 3)
    scores = {
        rule: weighted_box_fusion(boxes, CONFIDENT, None, models=2, rescaling=rule).dets[:, 4]
        for rule in ('capped', 'linear')
    }
    torch.testing.assert_close(scores['capped'], torch.tensor([0.6]))
    torch.testing.assert_close(scores['linear'], torch.tensor([0.9]))


def test_a_box_joins_the_fused_box_that_it_overlaps_most() -> None:
    # Box 2 overlaps the first one by 5 / 11, the second by 6 / 10.
    boxes = torch.tensor([[0.0, 0.0, 8.0, 1.0], [5.0, 0.0, 13.0, 1.0], [3.0, 0.0, 11.0, 1.0]])
    fused = weighted_box_fusion(boxes, torch.tensor([0.9, 0.8, 0.4]), None, iou_threshold=0.4)
    assert fused.cluster.tolist() == [0, 1, 1]
    torch.testing.assert_close(fused.dets[1, 0], torch.tensor((0.8 * 5 + 0.4 * 3) / 1.2))


@pytest.mark.parametrize('rescaling', ['capped', 'linear'])
@pytest.mark.parametrize(('count', 'classes'), [(1, 1), (60, 1), (150, 4), (100, 60)])
def test_fusion_equals_loops(rescaling: str, count: int, classes: int) -> None:
    boxes, scores, labels = detections(count, count, classes)
    fused = weighted_box_fusion(boxes, scores, labels, 0.5, 3, rescaling)
    expected = fuse(boxes, scores, labels, 0.5, 3, rescaling)
    table = torch.tensor([[*mean, score] for score, mean, _ in expected])
    torch.testing.assert_close(fused.dets, table, rtol=1e-5, atol=1e-5)
    assert fused.keep.tolist() == [cluster[0] for _, _, cluster in expected]
    for place, (_, _, cluster) in enumerate(expected):
        assert (fused.cluster == place).nonzero()[:, 0].tolist() == sorted(cluster)
    if classes == 4:
        assert 20 < len(expected) < 130


def test_edges_are_finite() -> None:
    none = weighted_box_fusion(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long())
    assert none.dets.shape == (0, 5) and none.keep.shape == none.cluster.shape == (0,)
    boxes = torch.tensor([SQUARE, SQUARE, [2.0, 2.0, 2.0, 5.0]])
    fused = weighted_box_fusion(boxes, torch.zeros(3), None)
    assert fused.dets.tolist() == [[*SQUARE, 0.0], [2.0, 2.0, 2.0, 5.0, 0.0]]
    half = weighted_box_fusion((600 * boxes).half(), CONFIDENT.half() / 2, None, models=2)
    assert half.dets.dtype == torch.float32 and half.dets.isfinite().all()
    torch.testing.assert_close(half.dets[0, :4], torch.tensor([0.0, 0.0, 2400.0, 2400.0]))
    # Fractions of an image: the area of the box is 1e-10.
    small = weighted_box_fusion(boxes / 4e5, CONFIDENT, None)
    assert small.cluster.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(iou_threshold=-0.1), r'iou_threshold must be in \[0, 1\], got -0.1'),
        (dict(models=0), 'models must be at least 1, got 0'),
        (dict(rescaling='mean'), "rescaling must be one of .*, got 'mean'"),
        (dict(scores=torch.tensor([0.5, -1.0])), 'scores must be at least 0, got -1.0'),
        (dict(scores=torch.tensor([0.5, math.nan])), 'scores must be finite, got nan in row 1'),
        (dict(boxes=torch.zeros(2, 5)), r'boxes must be corners \(N, 4\), got \(2, 5\)'),
    ],
)
def test_wrong_arguments_are_named(change: dict[str, object], message: str) -> None:
    usual = dict(boxes=torch.zeros(2, 4), scores=torch.ones(2), labels=None)
    with pytest.raises(ValueError, match=message):
        weighted_box_fusion(**(usual | change))
