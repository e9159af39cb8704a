r"""Aligned pairs of boxes and their measures, the common base of all overlap losses.

With the two options that all of them take, the losses have the form

.. math::
    L = 1 - \left(IoU_r\right)^a + \sum_k P_k^a

with :math:`a` the ``power``, :math:`r` the ``inner_ratio``, :math:`IoU_r` the IoU of both boxes
scaled by :math:`r` about their own centres, and :math:`P_k` the penalties of the loss, which use
the boxes as they are. For :math:`a = r = 1` it is the plain loss. A power above 1 gives more weight
to pairs that overlap well. Below 1 the slope is infinite where the IoU or a penalty is 0;
`bounded_power` puts a secant there. A ratio below 1 demands a better overlap, one above 1 reaches
boxes that are apart.

References:
    He et al., Alpha-IoU: A Family of Power Intersection over Union Losses for Bounding Box
    Regression, 2021, section 3; Zhang et al., Inner-IoU: More Effective Intersection over Union
    Loss with Auxiliary Bounding Box, 2023, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mmdet_ext.functional.boxes._coordinates import (
    area,
    boxes_of_columns,
    corners,
    larger,
    seen_at_least,
    span,
    split_corners,
    squared_norm,
)
from mmdet_ext.functional.boxes._powers import complement_power
from mmdet_ext.functional.boxes.checks import check_aligned_boxes, check_overlap_options
from mmdet_ext.functional.numerics.bounds import not_negative
from mmdet_ext.functional.numerics.precision import promote_half
from mmdet_ext.functional.numerics.row_blocks import by_row_blocks

__all__ = ['BoxPair', 'over_pairs']

#: Pairs of a block on a CPU.
BLOCK_PAIRS = 16_384

#: Pairs from which on a CPU computes by blocks; below that, blocks save little memory.
MANY_PAIRS = 65_536


class BoxPair:
    """Aligned boxes with the coordinates first, so that operations run over contiguous rows.

    Each method computes its measure when it is called, so that a loss pays only for what it uses.

    Attributes:
        low: smaller corners of the predictions, (2, ...), px.
        high: larger corners of the predictions, (2, ...), px.
        target_low: smaller corners of the targets, (2, ...), px.
        target_high: larger corners of the targets, (2, ...), px.
        sides: widths and heights of the predictions, (2, ...), px; 0 where a box is inverted.
        target_sides: widths and heights of the targets, (2, ...), px; 0 where a box is inverted.
        eps: px**2; the gradient is exact for boxes with all sides of at least sqrt(eps).
    """

    def __init__(
        self, low: Tensor, high: Tensor, target_low: Tensor, target_high: Tensor, eps: float
    ) -> None:
        self.low, self.high = low, high
        self.target_low, self.target_high = target_low, target_high
        self.sides = not_negative(high - low)
        self.target_sides = not_negative(target_high - target_low)
        self.eps = eps

    @property
    def shortest(self) -> float:
        """Smallest divisor for a side, sqrt(eps), px."""
        return math.sqrt(self.eps)

    def areas(self) -> tuple[Tensor, Tensor]:
        """Compute the areas of intersection and union, px**2."""
        intersection = area(self.shared_sides())
        return intersection, self.union(intersection)

    def union(self, intersection: Tensor) -> Tensor:
        """Compute the area of the union, px**2, from that of the intersection."""
        return area(self.sides) + area(self.target_sides) - intersection

    def union_floor(self) -> Tensor:
        """Compute the smallest divisor for the area of the union, px**2, without a graph.

        It is sqrt(eps) times the longest side. The gradient of an overlap then stays within about
        1 / sqrt(eps) per pixel however flat the boxes are, which is finite in float16.
        """
        with torch.no_grad():
            return self.area_floor(torch.maximum(self.sides, self.target_sides))

    def area_floor(self, sides: Tensor) -> Tensor:
        """Compute the smallest divisor for the area of a box with these sides (2, ...), px**2."""
        return (sides.detach().amax(0) * self.shortest).clamp(min=self.eps)

    def iou_distance(self, areas: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Compute 1 - IoU, in [0, 1].

        It is computed as (union - intersection) / union, which is exactly 0 for equal boxes, even
        without area. Different boxes without area have the distance 1.

        Args:
            areas: result of `areas`, if the caller has it.
        """
        intersection, union = self.areas() if areas is None else areas
        outside, floor = union - intersection, self.union_floor()
        if seen_at_least(union, floor):
            return outside / union
        distance = outside / larger(union, floor)
        with torch.no_grad():
            exact = torch.where(union > 0, outside / union, self.differ().to(union.dtype))
            # The floor bounds the gradient. The value is corrected to what it is without a floor.
            correction = exact.sub_(distance)
        return distance + correction

    def differ(self) -> Tensor:
        """Return where the boxes differ in any corner, (...) bool."""
        return ((self.low != self.target_low) | (self.high != self.target_high)).any(0)

    def scaled(self, ratio: float) -> BoxPair:
        """Return the pair with each box scaled about its own centre.

        Args:
            ratio: factor on the sides, above 0.
        """
        # Relative to the target's corner, coordinates are rounded by the size of the boxes and not
        # by their distance from the origin of the image.
        low, high = self.low - self.target_low, self.high - self.target_low
        target_high = self.target_high - self.target_low
        step = (1 - ratio) / 2 * (high - low)
        target_step = (1 - ratio) / 2 * target_high
        # The floors grow with the boxes, so that the gradient keeps its bound.
        eps = self.eps * max(1.0, ratio) ** 2
        return BoxPair(low + step, high - step, target_step, target_high - target_step, eps)

    def overlap_term(
        self, power: float, inner_ratio: float, distance: Tensor | None = None
    ) -> Tensor:
        """Compute 1 - IoU**power, in [0, 1], of the boxes scaled by ``inner_ratio``.

        Args:
            power: above 0.
            inner_ratio: above 0.
            distance: result of `iou_distance`, if the caller has it.
        """
        if inner_ratio != 1:
            distance = self.scaled(inner_ratio).iou_distance()
        elif distance is None:
            distance = self.iou_distance()
        return complement_power(distance, power)

    def shared_sides(self) -> Tensor:
        """Compute width and height of the intersection, (2, ...), px."""
        return span(self.low, self.high, self.target_low, self.target_high, shared=True)

    def outer_sides(self) -> Tensor:
        """Compute width and height of the smallest box around both, (2, ...), px."""
        return span(self.low, self.high, self.target_low, self.target_high, shared=False)

    def center_gap(self) -> Tensor:
        """Compute the centre of the prediction minus that of the target, (2, ...), px."""
        return ((self.low + self.high) - (self.target_low + self.target_high)) / 2

    def center_ratio(self, outer: Tensor, gap: Tensor) -> Tensor:
        """Compute the squared distance of the centres over the squared diagonal, in [0, 1].

        Args:
            outer: result of `outer_sides`, whose diagonal is meant.
            gap: result of `center_gap`.
        """
        return self.share(squared_norm(gap), squared_norm(outer))

    def share(self, part: Tensor, whole: Tensor) -> Tensor:
        """Compute ``part / whole`` of squared lengths, px**2, in [0, 1].

        Only for inverted boxes can the part be larger than the whole; the result is 1 then.
        """
        return part / larger(whole, part.detach().clamp(min=self.eps))


def over_pairs(
    formula: Callable[..., Tensor],
    pred: Tensor,
    target: Tensor,
    eps: float,
    power: float,
    inner_ratio: float,
    *own: Any,
) -> Tensor:
    """Apply the formula of a loss to aligned boxes.

    On a CPU, `MANY_PAIRS` or more are computed block by block. Of each block only the values and
    their derivatives with respect to the corners are kept, which takes a third of the memory.

    Args:
        formula: called with a `BoxPair`, ``power``, ``inner_ratio`` and ``own``; returns one value
            per pair, which must not depend on other pairs.
        pred: (..., 4) corners, px; half precision is computed in float32.
        target: (..., 4), the same shape.
        eps: px**2; the gradient is exact for boxes with all sides of at least sqrt(eps).
        power: exponent of the IoU and of each penalty.
        inner_ratio: factor on both boxes' sides for the overlap term.
        *own: options of this formula alone.

    Returns:
        Tensor: (...), with a graph to ``pred``, and to ``target`` if that has one.

    Raises:
        ValueError: if the shapes differ or do not end in 4, or one of ``eps``, ``power`` and
            ``inner_ratio`` is not above 0.
    """
    check_aligned_boxes(pred, target)
    check_overlap_options(eps, power, inner_ratio)
    pred, target = promote_half(pred, target)

    def of_corners(low: Tensor, high: Tensor, others: Tensor) -> Tensor:
        pair = BoxPair(low, high, *split_corners(others), eps)
        return formula(pair, power, inner_ratio, *own)

    def of_block(boxes: Tensor, others: Tensor, wanted: bool) -> tuple[Tensor, Tensor | None]:
        low, high = (corner.requires_grad_(wanted) for corner in split_corners(boxes))
        with torch.set_grad_enabled(wanted):
            value = of_corners(low, high, others)
        if not wanted:
            return value, None
        low, high = torch.autograd.grad(value, (low, high), torch.ones_like(value))
        return value.detach(), boxes_of_columns((*low.unbind(0), *high.unbind(0)))

    if (
        pred.numel() >= 4 * MANY_PAIRS
        and pred.device.type == 'cpu'
        and not target.requires_grad
        and not torch.compiler.is_compiling()
    ):
        return by_row_blocks(of_block, pred, target, cpu_elements=4 * BLOCK_PAIRS)
    return of_corners(*corners(pred), target)
