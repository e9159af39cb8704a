"""Weighted boxes fusion: the mean of a cluster of detections, instead of the best of them."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from mmdet_ext.functional.boxes._detections import check_detections, planes_iou, planes_of
from mmdet_ext.functional.numerics.checks import check_count, check_number, check_one_of

__all__ = ['FusedBoxes', 'Rescaling', 'weighted_box_fusion']

#: Rule by which boxes that few models found lose score.
Rescaling = Literal['capped', 'linear']

#: Smallest weight of a box in a mean, so that boxes whose scores are all 0 have one.
LEAST_WEIGHT = 1e-12


class FusedBoxes(NamedTuple):
    """Result of `weighted_box_fusion`, best first.

    Attributes:
        dets: (K, 5) fused boxes, px, with their scores.
        keep: (K,) int64, index of the best box of each cluster; ``labels[keep]`` are the classes.
        cluster: (N,) int64, index of the fused box of each box, below K.
    """

    dets: Tensor
    keep: Tensor
    cluster: Tensor


def weighted_box_fusion(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor | None,
    iou_threshold: float = 0.55,
    models: int = 1,
    rescaling: Rescaling = 'capped',
) -> FusedBoxes:
    r"""Replace boxes that overlap by their mean, weighted by their scores.

    The boxes of a class take their turn, best first. A box joins the cluster whose fused box it
    overlaps most, if their IoU is above ``iou_threshold``, and otherwise begins a cluster. The
    fused box of a cluster of :math:`T` boxes, renewed with each of them, has the coordinates and
    the score

    .. math::
        X = \frac{\sum_i C_i X_i}{\sum_i C_i}, \qquad
        C = \frac{\sum_i C_i}{T} \cdot \begin{cases}
            \min(T, N) / N & \text{capped} \\
            T / N & \text{linear}
        \end{cases}

    with :math:`X_i` the ``boxes`` and :math:`C_i` the ``scores`` of the cluster, and :math:`N` the
    number of ``models``. To weigh models, multiply their scores before.

    Args:
        boxes: (M, 4) corners, of all models, px or fractions of the image, finite, not inverted;
            half precision is computed in float32.
        scores: (M,), finite, at least 0; of equal scores the first box takes its turn first.
        labels: (M,) whole numbers; None to fuse boxes whatever their class.
        iou_threshold: in [0, 1].
        models: number of models or views that the boxes come from, at least 1.
        rescaling: ``capped``: a box loses score if fewer boxes than models agree. ``linear``: it
            also gains if more do, so that scores may exceed 1.

    Returns:
        FusedBoxes: fused boxes, the best box of each cluster, and the cluster of each box. They
        have no gradient.

    Raises:
        TypeError: if boxes, scores or labels are no tensors of numbers.
        ValueError: for other shapes, values that are not finite, scores below 0, inverted boxes and
            wrong options.

    >>> boxes = torch.tensor([[0., 0., 4., 4.], [0., 0., 4., 3.], [8., 8., 9., 9.]])
    >>> fused = weighted_box_fusion(boxes, torch.tensor([.6, .2, .5]), None, models=2)
    >>> fused.dets
    tensor([[0.0000, 0.0000, 4.0000, 3.7500, 0.4000],
            [8.0000, 8.0000, 9.0000, 9.0000, 0.2500]])
    >>> fused.cluster
    tensor([0, 0, 1])

    The lower side is (0.6 * 4 + 0.2 * 3) / 0.8. The last box was found by one of two models.

    References:
        Solovyev et al., Weighted boxes fusion: Ensembling boxes from different object detection
        models, 2021, section 3: equations 1 to 3, 4 (capped) and 5 (linear).
    """
    check_number('iou_threshold', iou_threshold, least=0, most=1)
    check_count('models', models)
    check_one_of('rescaling', rescaling, Rescaling)
    boxes, scores = check_detections(boxes, scores, labels)
    if bool((scores < 0).any()):
        raise ValueError(
            f'scores must be at least 0, got {float(scores.min())}: they are weights; give '
            'probabilities'
        )
    if not scores.shape[0]:
        return FusedBoxes(boxes.new_empty(0, 5), *scores.new_empty(2, 0, dtype=torch.int64))
    slot, sums, first = _clusters(boxes, scores, labels, iou_threshold)
    members = torch.zeros_like(first).index_add_(0, slot, torch.ones_like(slot))
    score = torch.zeros_like(scores).index_add_(0, slot, scores)
    score = score * (members.clamp(max=models) if rescaling == 'capped' else members) / models
    used = members.nonzero()[:, 0]
    score = score[used] / members[used]
    score, order = score.sort(descending=True, stable=True)
    used = used[order]
    place = torch.empty_like(first)
    place[used] = torch.arange(used.shape[0], device=place.device)
    dets = torch.cat([_means(sums[used]), score[:, None]], 1)
    return FusedBoxes(dets, first[used], place[slot])


def _clusters(
    boxes: Tensor, scores: Tensor, labels: Tensor | None, iou_threshold: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Assign each box to a cluster, one box per class at once.

    A class has as many slots for clusters as boxes. Classes with more boxes come first, so that
    those that still have a box are always the first ones.

    Returns:
        tuple: slot of each box (N,); of each slot, the weighted sum of its boxes and their weights
        (N, 5), and the index of its first box.
    """
    if labels is None:
        labels = torch.zeros_like(scores, dtype=torch.int64)
    _, group, sizes = labels.unique(return_inverse=True, return_counts=True)
    sizes, by_size = sizes.sort(descending=True, stable=True)
    group = by_size.argsort()[group]
    order = scores.argsort(descending=True, stable=True)
    order = order[group[order].argsort(stable=True)]
    begin = sizes.cumsum(0) - sizes
    weights = scores.clamp(min=LEAST_WEIGHT)[:, None]
    weighted = torch.cat([boxes * weights, weights], 1)
    sums, fused = torch.zeros_like(weighted), torch.zeros_like(boxes)
    clusters = torch.zeros_like(sizes)
    slot, first = torch.empty_like(order), torch.empty_like(order)
    # Number of classes that have a box left at each turn.
    left = sizes.bincount().flip(0).cumsum(0).flip(0)[1:].tolist()
    for turn, classes in enumerate(left):
        start = begin[:classes]
        index = order[start + turn]
        choice = start + clusters[:classes]
        if turn:
            slots = start[:, None] + torch.arange(turn, device=start.device)
            best, at = planes_iou(planes_of(boxes[index, None]), planes_of(fused[slots])).max(1)
            choice = choice.where(best <= iou_threshold, start + at)
        begins = choice == start + clusters[:classes]
        first[choice] = index.where(begins, first[choice])
        clusters[:classes] += begins
        slot[index] = choice
        sums[choice] += weighted[index]
        fused[choice] = _means(sums[choice])
    return slot, sums, first


def _means(sums: Tensor) -> Tensor:
    """Return the weighted means of the boxes of clusters (K, 4)."""
    return sums[:, :4] / sums[:, 4:]
