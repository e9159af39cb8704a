"""Detections of an image: boxes, scores and labels, checked, and the overlap of two of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmdet_ext.functional.boxes.overlap import iou_of_planes
from mmdet_ext.functional.numerics.order import columns_of
from mmdet_ext.functional.numerics.precision import promote_half

#: Boxes by coordinates: x1, y1, x2, y2 (px) and area (px**2), each of one shape. Gathering from
#: these is several times as fast as from rows of four.
Planes = Sequence[Tensor]


def check_detections(boxes: Tensor, scores: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
    """Check detections, and return boxes and scores in one precision, without their graphs.

    Args:
        boxes: (N, 4) corners, px.
        scores: (N,).
        labels: (N,) whole numbers; None for none.

    Raises:
        TypeError: naming the argument that is no tensor, or labels that are no whole numbers.
        ValueError: naming the argument whose shape or values are wrong.
    """
    for name, value in (('boxes', boxes), ('scores', scores), ('labels', labels)):
        if not isinstance(value, Tensor) and (name != 'labels' or value is not None):
            raise TypeError(f'{name} must be a tensor, got {type(value).__name__}')
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f'boxes must be corners (N, 4), got {tuple(boxes.shape)}')
    for name, value in (('scores', scores), ('labels', labels)):
        if value is not None and value.shape != boxes.shape[:1]:
            raise ValueError(
                f'{name} must be one per box, ({boxes.shape[0]},), got {tuple(value.shape)}'
            )
    if labels is not None and (labels.is_floating_point() or labels.is_complex()):
        raise TypeError(f'labels must be whole numbers, got {labels.dtype}')
    boxes, scores = promote_half(boxes.detach(), scores.detach())
    why = 'the network has diverged, or half precision has overflowed'
    for name, value in (('scores', scores), ('boxes', boxes)):
        if not bool(value.sum().isfinite()):  # terms of a finite sum are finite
            _check_none(name, value, ~value.isfinite(), 'finite', why)
    wanted = 'corners x1, y1, x2, y2 with x1 <= x2 and y1 <= y2'
    x1, y1, x2, y2 = columns_of(boxes)
    inverted = (x1 > x2) | (y1 > y2)
    _check_none('boxes', boxes, inverted, wanted, 'order the corners, or leave such boxes out')
    return boxes, scores


def planes_of(boxes: Tensor) -> Planes:
    """Return boxes (..., 4) by coordinates, with their areas."""
    x1, y1, x2, y2 = columns_of(boxes)
    return x1, y1, x2, y2, (x2 - x1) * (y2 - y1)


def gather(planes: Planes, index: Tensor) -> Planes:
    """Return the boxes of an index (E,)."""
    return [plane.index_select(0, index) for plane in planes]


def planes_iou(one: Planes, other: Planes) -> Tensor:
    """Compute the IoU of boxes that broadcast, in the order of operations of mmcv.

    Boxes without area overlap nothing, and no union is too small to divide by.
    """
    tiny = torch.finfo(one[0].dtype).tiny
    # Areas of boxes of 1e20 px are infinite, and their quotients NaN.
    return iou_of_planes(one, other[:4], eps=tiny).nan_to_num_(0.0)


def _check_none(name: str, value: Tensor, wrong: Tensor, wanted: str, why: str) -> None:
    """Raise ValueError, naming the first row (of N), if ``wrong`` is True anywhere."""
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0, 0])
        got = f'got {value[row].tolist()} in row {row}'
        raise ValueError(f'{name} must be {wanted}, {got}: {why}')
