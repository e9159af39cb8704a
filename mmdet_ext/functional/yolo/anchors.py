r"""Anchors by k-means over the sides of boxes, with the distance 1 - IoU.

The IoU is that of boxes laid on one centre. With Euclidean distance large boxes would err more than
small ones, and anchors would crowd at large sizes.

1. Choose the first centres among the boxes, each far from those before it (k-means++).
2. Each box joins the centre of the largest IoU, of equal ones the first.
3. Each centre moves to the mean width and height of its boxes. One without boxes moves to the box
   that fits its own centre worst.
4. Repeat from 2 until no box changes its centre.

References:
    Redmon and Farhadi, YOLO9000: Better, Faster, Stronger, 2017, section 2, "dimension clusters".
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mmdet_ext.functional.boxes.overlap import concentric_iou
from mmdet_ext.functional.numerics.checks import check_count, check_number, check_that
from mmdet_ext.functional.numerics.chunks import row_chunks
from mmdet_ext.functional.numerics.precision import promote_half

__all__ = ['AnchorFit', 'AnchorRecall', 'anchor_fit', 'anchor_recall', 'kmeans_anchors']

#: Best possible recall below which YOLOv5 replaces anchors.
LEAST_RECALL = 0.98

#: Tables of a number per box that are in use at once.
CHUNK_TABLES = 16


class AnchorFit(NamedTuple):
    """Anchors and how well boxes fit them.

    Attributes:
        anchors: (k, 2) width and height, the smallest area first.
        mean_iou: mean over the boxes of the IoU with the anchor that fits best.
        counts: (k,) int64, number of boxes that fit each anchor best.
    """

    anchors: Tensor
    mean_iou: float
    counts: Tensor


class AnchorRecall(NamedTuple):
    """Share of boxes that have an anchor whose sides are similar enough.

    Attributes:
        recall: share of the boxes with at least one such anchor.
        per_box: mean number of such anchors of a box.
    """

    recall: float
    per_box: float


def kmeans_anchors(sides: Tensor, k: int, seed: int = 0, max_steps: int = 100) -> AnchorFit:
    """Cluster boxes by shape.

    The result depends on ``sides``, ``k`` and ``seed`` alone.

    Args:
        sides: (N, 2) widths and heights, above 0, in any unit.
        k: number of anchors, at least 1.
        seed: seed of the first centres.
        max_steps: largest number of moves, at least 1. As a mean does not maximise the IoU, boxes
            may change their centres forever; of very many boxes, some do long after the mean IoU
            stands still.

    Returns:
        AnchorFit: anchors in the unit of ``sides``.

    Raises:
        ValueError: if ``sides`` has another shape or a side that is not above 0 and finite, or
            fewer than ``k`` different boxes.

    >>> sides = torch.tensor([[10., 10.], [12., 12.], [40., 20.], [44., 22.]])
    >>> fit = kmeans_anchors(sides, 2)
    >>> fit.anchors.tolist(), fit.counts.tolist()
    ([[11.0, 11.0], [42.0, 21.0]], [2, 2])
    """
    check_count('k', k)
    check_count('max_steps', max_steps)
    (sides,) = promote_half(sides)
    sides = sides.detach().to(torch.float64)
    _check_sides(sides)
    different = len(sides.float().unique(dim=0))
    check_that(
        different >= k,
        'k',
        k,
        f'at most {different}, the number of different boxes among the {len(sides)} given',
        'take fewer anchors, or more boxes',
    )
    centers = _first_centers(sides, k, torch.Generator().manual_seed(seed))
    joined = torch.full((len(sides),), -1, dtype=torch.long, device=sides.device)
    for _ in range(max_steps):
        overlap, nearest = _nearest(sides, centers)
        if torch.equal(nearest, joined):
            break
        joined = nearest
        centers = _moved(sides, centers, overlap, nearest)
    return anchor_fit(sides, centers)


def anchor_fit(sides: Tensor, anchors: Tensor) -> AnchorFit:
    """Compute how well boxes fit given anchors.

    Args:
        sides: (N, 2) widths and heights, above 0; N at least 1.
        anchors: (k, 2), in the same unit.

    Returns:
        AnchorFit: the anchors by area.

    Raises:
        ValueError: if a tensor has another shape, or a side that is not above 0 and finite.

    >>> fit = anchor_fit(torch.tensor([[2., 2.], [4., 4.]]), torch.tensor([[4., 4.]]))
    >>> fit.mean_iou, fit.counts
    (0.625, tensor([2]))
    """
    sides, anchors = promote_half(sides, anchors)
    _check_sides(sides)
    _check_sides(anchors, 'anchors')
    order = anchors.prod(-1).argsort(stable=True)
    anchors = anchors[order]
    overlap, nearest = _nearest(sides, anchors)
    counts = torch.bincount(nearest, minlength=len(anchors))
    return AnchorFit(anchors, float(overlap.double().mean()), counts)


def anchor_recall(sides: Tensor, anchors: Tensor, ratio_thr: float = 4.0) -> AnchorRecall:
    r"""Compute the best possible recall: the share of boxes that anchors fit by their sides.

    An anchor fits a box if :math:`\max(w / w_a, w_a / w, h / h_a, h_a / h) < r`, with r the
    ``ratio_thr``, as in `yolov5_match`. A box that no anchor fits is never learned.

    Args:
        sides: (N, 2) widths and heights, above 0; N at least 1.
        anchors: (k, 2), in the same unit.
        ratio_thr: r, above 1.

    Returns:
        AnchorRecall: both figures.

    Raises:
        ValueError: if a tensor has another shape, or a side that is not above 0 and finite, or
            ``ratio_thr`` is not above 1.

    >>> sides = torch.tensor([[10., 10.], [39., 10.], [40., 10.]])
    >>> anchor_recall(sides, torch.tensor([[10., 10.], [10., 40.]]))
    AnchorRecall(recall=0.6666666865348816, per_box=0.6666666865348816)

    The third box is exactly four times as wide as the anchors. The first is a quarter as high as
    the second anchor.

    References:
        Jocher, YOLOv5, https://github.com/ultralytics/yolov5, release 6, utils/autoanchor.py.
    """
    check_number('ratio_thr', ratio_thr, above=1)
    sides, anchors = promote_half(sides, anchors)
    _check_sides(sides)
    _check_sides(anchors, 'anchors')
    ratio = sides[:, None] / anchors
    fits = torch.maximum(ratio, 1 / ratio).amax(-1) < ratio_thr
    return AnchorRecall(
        recall=float(fits.any(1).float().mean()), per_box=float(fits.sum(1).float().mean())
    )


def _check_sides(sides: Tensor, name: str = 'sides') -> None:
    shape = tuple(sides.shape)
    check_that(
        len(shape) == 2 and shape[1] == 2 and shape[0] > 0,
        name,
        shape,
        'of shape (N, 2) with N above 0',
    )
    bad = ~((sides > 0) & sides.isfinite()).all(1)
    if bool(bad.any()):
        first = int(bad.nonzero()[0])
        raise ValueError(
            f'{name} must be above 0 and finite, got {int(bad.sum())} that are not; the first is '
            f'{name}[{first}] = {sides[first].tolist()}. Leave out boxes without area'
        )


def _nearest(sides: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest IoU (N,) of each box with a centre, and the first such centre (N,).

    Centres take turns on chunks of boxes that stay in the cache of a processor.
    """
    best = torch.full_like(sides[:, 0], -1)
    index = torch.zeros_like(best, dtype=torch.long)
    for start, stop in row_chunks(len(sides), CHUNK_TABLES):
        width, height = sides[start:stop].T.contiguous()
        area, own = width * height, best[start:stop]
        for number, (center_width, center_height) in enumerate(centers.tolist()):
            shared = width.clamp(max=center_width).mul_(height.clamp(max=center_height))
            overlap = shared / (area + center_width * center_height).sub_(shared)
            index[start:stop].masked_fill_(overlap > own, number)
            torch.maximum(own, overlap, out=own)
    return best, index


def _first_centers(sides: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Draw k different boxes, each with a probability as its distance from those before it."""
    places = [int(torch.randint(len(sides), (1,), generator=generator))]
    distance = torch.full((len(sides),), torch.inf, dtype=sides.dtype, device=sides.device)
    for _ in range(k - 1):
        distance = distance.minimum(1 - concentric_iou(sides, sides[places[-1]], eps=0))
        distance = distance.clamp(min=0)  # rounding
        total = distance.cumsum(0).cpu()
        share = float(torch.rand(1, generator=generator)) * float(total[-1])
        place = int(torch.searchsorted(total, total.new_tensor([share]), right=True))
        places.append(min(place, int(distance.nonzero()[-1])))
    return sides[places]


def _moved(sides: Tensor, centers: Tensor, overlap: Tensor, nearest: Tensor) -> Tensor:
    """Return the mean of each centre's boxes; those without boxes take the boxes of worst fit."""
    counts = torch.bincount(nearest, minlength=len(centers))
    means = torch.zeros_like(centers).index_add_(0, nearest, sides) / counts[:, None].clamp(min=1)
    empty = counts == 0
    if bool(empty.any()):
        worst = overlap.argsort(stable=True)[: int(empty.sum())]
        means[empty] = sides[worst]
    return means
