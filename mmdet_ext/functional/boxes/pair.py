r"""Aligned pairs of boxes, measured; what all overlap losses start from.

Their common form, with the two options that all of them take, is

.. math::
    L = 1 - \left(IoU_r\right)^a + \sum_k P_k^a

with :math:`a` the ``power``, :math:`r` the ``inner_ratio``, :math:`IoU_r` the IoU of both boxes
scaled by :math:`r` about their own centres, and :math:`P_k` the penalties of the loss, which take
the boxes as they are. At 1 and 1 it is the plain loss. A power above 1 lets pairs that overlap
well count for more; below 1, the slope is infinite where IoU or penalty is 0, and `bounded_power`
puts a secant there. A ratio below 1 asks for a better overlap, one above 1 reaches boxes apart.

References:
    He et al., Alpha-IoU: A Family of Power Intersection over Union Losses for Bounding Box
    Regression, 2021, section 3; Zhang et al., Inner-IoU: More Effective Intersection over Union
    Loss with Auxiliary Bounding Box, 2023, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import threshold

from mmdet_ext.functional.boxes.checks import check_aligned_boxes, check_overlap_options
from mmdet_ext.functional.numerics.precision import promote_half

#: Pairs that are computed at a time on a CPU.
BLOCK_PAIRS = 16_384

#: How many times steeper a power below 1 may make a term at 0, where its own slope is infinite.
STEEPEST = 16.0

_SMALLEST = 1e-24


class BoxPair:
    """Aligned boxes with the coordinates first, so that everything runs over contiguous rows.

    A method measures one thing when it is called: a loss pays for what it takes.

    Attributes:
        low: smaller corners of the predictions, (2, ...), px; the larger ones are ``high``.
        target_low: of the targets, likewise.
        sides: widths and heights of the predictions, (2, ...), px; 0 where a box is inverted.
        target_sides: of the targets, likewise.
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
        """What a side that is divided by counts as at least, px."""
        return math.sqrt(self.eps)

    def areas(self) -> tuple[Tensor, Tensor]:
        """Intersection and union, px**2."""
        intersection = area(self.shared_sides())
        return intersection, self.union(intersection)

    def union(self, intersection: Tensor) -> Tensor:
        """Area of the union, px**2."""
        return area(self.sides) + area(self.target_sides) - intersection

    def union_floor(self) -> Tensor:
        """What the union is divided by at least, px**2, without a graph.

        At sqrt(eps) times the longest side, the gradient of an overlap stays within about
        1 / sqrt(eps) a pixel however flat the boxes are: finite in float16.
        """
        with torch.no_grad():
            return self.area_floor(torch.maximum(self.sides, self.target_sides))

    def area_floor(self, sides: Tensor) -> Tensor:
        """The like for an area of the given sides (2, ...)."""
        return (sides.detach().amax(0) * self.shortest).clamp(min=self.eps)

    def iou_distance(self, areas: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """1 - IoU, in [0, 1].

        Taken as (union - intersection) / union, which is exactly 0 for equal boxes, even for
        such without area; 1 for other boxes without area.

        Args:
            areas: what `areas` gave, where the caller has it.
        """
        intersection, union = self.areas() if areas is None else areas
        outside, floor = union - intersection, self.union_floor()
        if seen_at_least(union, floor):
            return outside / union
        distance = outside / larger(union, floor)
        with torch.no_grad():
            exact = torch.where(union > 0, outside / union, self.differ().to(union.dtype))
            # The floor bounds the gradient; the value is what it is without.
            beyond = exact.sub_(distance)
        return distance + beyond

    def differ(self) -> Tensor:
        """Whether the boxes differ in any corner, (...) bool."""
        return ((self.low != self.target_low) | (self.high != self.target_high)).any(0)

    def scaled(self, ratio: float) -> BoxPair:
        """The pair with each box scaled about its own centre."""
        # Seen from the target's corner: scaled coordinates are rounded by the boxes' own size,
        # not by how far into the picture they lie.
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
        """1 - IoU**power, in [0, 1], of the boxes scaled by ``inner_ratio``.

        Args:
            power: above 0.
            inner_ratio: above 0.
            distance: what `iou_distance` gave, where the caller has it.
        """
        if inner_ratio != 1:
            distance = self.scaled(inner_ratio).iou_distance()
        elif distance is None:
            distance = self.iou_distance()
        return complement_power(distance, power)

    def shared_sides(self) -> Tensor:
        """Width and height of what both boxes share, (2, ...), px."""
        return self._span(shared=True)

    def outer_sides(self) -> Tensor:
        """Width and height of the smallest box around both, (2, ...), px."""
        return self._span(shared=False)

    def _span(self, shared: bool) -> Tensor:
        """Sides of what both boxes share, or of the box around both, (2, ...), px."""
        boxes = self.low, self.high, self.target_low, self.target_high
        return not_negative(_Span.apply(*boxes, shared))  # type: ignore[no-untyped-call]

    def center_gap(self) -> Tensor:
        """Centre of the prediction less that of the target, (2, ...), px."""
        return ((self.low + self.high) - (self.target_low + self.target_high)) / 2

    def center_ratio(self, outer: Tensor, gap: Tensor) -> Tensor:
        """Squared distance of the centres over the squared diagonal around both, in [0, 1]."""
        return self.share(squared_norm(gap), squared_norm(outer))

    def share(self, part: Tensor, whole: Tensor) -> Tensor:
        """``part / whole`` of squared lengths, px**2, in [0, 1].

        The part is larger than the whole for inverted boxes alone; then it is divided by itself.
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
    """A formula on a `BoxPair`, over aligned boxes (..., 4).

    On a CPU many pairs are taken block by block, so that intermediates stay in the cache; of each
    block only the values and their derivatives by the corners are kept.

    Args:
        formula: called with the pair, ``power``, ``inner_ratio`` and ``own``; gives one value a
            pair, that depends on no other pair.
        pred: (..., 4) corners, px; half precision is computed in float32.
        target: (..., 4), the same shape.
        eps: px**2; the gradient is exact for boxes with all sides of at least sqrt(eps).
        power: exponent of the IoU and of each penalty.
        inner_ratio: factor on both boxes' sides for the overlap term.
        own: options of the formula alone.

    Returns:
        Tensor: (...). With a graph to ``pred``; with one to ``target`` too where it has one.

    Raises:
        ValueError: if the shapes differ or do not end in 4, or one of ``eps``, ``power`` and
            ``inner_ratio`` is not above 0.
    """
    check_aligned_boxes(pred, target)
    check_overlap_options(eps, power, inner_ratio)
    options = power, inner_ratio, *own
    pred, target = promote_half(pred, target)
    if (
        pred.numel() > 4 * BLOCK_PAIRS
        and pred.device.type == 'cpu'
        and not target.requires_grad
        and not torch.compiler.is_compiling()
    ):
        return _by_blocks(formula, pred, target, eps, *options)
    low, high = _Corners.apply(pred)  # type: ignore[no-untyped-call]
    return formula(BoxPair(low, high, *_corners(target), eps), *options)


def _by_blocks(
    formula: Callable[..., Tensor], pred: Tensor, target: Tensor, eps: float, *options: Any
) -> Tensor:
    wanted = pred.requires_grad and torch.is_grad_enabled()
    rows, target_rows = (boxes.detach().reshape(-1, 4) for boxes in (pred, target))
    value = rows.new_empty(len(rows))
    derivative = rows.new_empty((4, len(rows)) if wanted else 0)
    for start in range(0, len(rows), BLOCK_PAIRS):
        block = slice(start, start + BLOCK_PAIRS)
        corners = low, high = _corners(rows[block])
        with torch.set_grad_enabled(wanted):
            for corner in corners:
                corner.requires_grad_(wanted)
            part = formula(BoxPair(low, high, *_corners(target_rows[block]), eps), *options)
        value[block] = part.detach()
        if wanted:
            slopes = torch.autograd.grad(part, corners, torch.ones_like(part))
            derivative[:2, block], derivative[2:, block] = slopes
    value = value.reshape(pred.shape[:-1])
    if not wanted:
        return value
    result: Tensor = _Known.apply(pred, value, derivative.reshape(4, *value.shape))  # type: ignore[no-untyped-call]
    return result


def _corners(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Smaller and larger corners, (2, ...) each, contiguous."""
    left, top, right, bottom = boxes.unbind(-1)
    return torch.stack((left, top)), torch.stack((right, bottom))


def _boxes(rows: Sequence[Tensor]) -> Tensor:
    """Four coordinates (...) as boxes (..., 4): by columns, far faster than a transposed copy."""
    boxes = rows[0].new_empty((*rows[0].shape, 4))
    for column, row in zip(boxes.unbind(-1), rows, strict=True):
        column.copy_(row)
    return boxes


class _Corners(torch.autograd.Function):
    """`_corners`, with a fast way back."""

    @staticmethod
    def forward(ctx: Any, boxes: Tensor) -> tuple[Tensor, Tensor]:
        return _corners(boxes)

    @staticmethod
    def backward(ctx: Any, low: Tensor, high: Tensor) -> Tensor:
        return _boxes((*low.unbind(0), *high.unbind(0)))


class _Known(torch.autograd.Function):
    """A value with its derivative (4, ...) by the corners of the boxes (..., 4)."""

    @staticmethod
    def forward(ctx: Any, boxes: Tensor, value: Tensor, derivative: Tensor) -> Tensor:
        ctx.save_for_backward(derivative)
        return value.view_as(value)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (derivative,) = ctx.saved_tensors
        return _boxes([gradient * row for row in derivative]), None, None


# Minimum, maximum and clamp of PyTorch choose by masks in their backward pass; on a CPU that costs
# ten times what the products below do.
class _Span(torch.autograd.Function):
    """From the larger smaller corner to the smaller larger corner; or the other way about."""

    @staticmethod
    def forward(
        ctx: Any, low: Tensor, high: Tensor, target_low: Tensor, target_high: Tensor, shared: bool
    ) -> Tensor:
        # Half the gradient, and half more or less: all or nothing, and half where equal.
        half = 0.5 if shared else -0.5
        ctx.save_for_backward(
            (low - target_low).sign_().mul_(half), (target_high - high).sign_().mul_(half)
        )
        if shared:
            return torch.minimum(high, target_high) - torch.maximum(low, target_low)
        return torch.maximum(high, target_high) - torch.minimum(low, target_low)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        low, high = ctx.saved_tensors
        half = gradient * 0.5
        low, high = gradient * low, gradient * high
        of_target = any(ctx.needs_input_grad[2:4])
        return (
            -half - low,
            half + high,
            low - half if of_target else None,
            half - high if of_target else None,
            None,
        )


class _Larger(torch.autograd.Function):
    """The larger of two tensors of one shape; equal ones share the gradient."""

    @staticmethod
    def forward(ctx: Any, one: Tensor, other: Tensor) -> Tensor:
        ctx.save_for_backward((one - other).sign_().mul_(0.5))
        return torch.maximum(one, other)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (lead,) = ctx.saved_tensors
        share = gradient * lead
        half = gradient * 0.5
        return (
            half + share if ctx.needs_input_grad[0] else None,
            half - share if ctx.needs_input_grad[1] else None,
        )


def seen_at_least(value: Tensor, floor: Tensor) -> bool:
    """Whether a look at the values shows that none lies below its floor.

    On a CPU a look costs less than what it saves. Elsewhere it would halt the device, and in a
    graph break it: there nobody looks.
    """
    if value.device.type != 'cpu' or torch.compiler.is_compiling() or value.numel() == 0:
        return False
    return bool((value.detach() - floor).min() >= 0)


def larger(one: Tensor, other: Tensor) -> Tensor:
    """The larger of two tensors of one shape; where equal, each has half the gradient."""
    result: Tensor = _Larger.apply(one, other)  # type: ignore[no-untyped-call]
    return result


def not_negative(value: Tensor) -> Tensor:
    """``value`` where it is at least 0, else 0; with the gradient at 0, as ``clamp``."""
    return threshold(value, -torch.finfo(torch.float32).tiny, 0.0)


def at_least(value: Tensor, floor: float) -> Tensor:
    """``value`` where it is above the floor, else that: as ``clamp``, in a tenth of the time."""
    return threshold(value, floor, floor)


def area(sides: Tensor) -> Tensor:
    """Width times height of (2, ...)."""
    width, height = sides.unbind(0)
    return width * height


def squared_norm(vector: Tensor) -> Tensor:
    """x**2 + y**2 of (2, ...)."""
    return vector.square().sum(0)


def complement_power(distance: Tensor, power: float) -> Tensor:
    """``1 - (1 - distance)**power`` for a distance in [0, 1]: exactly 0 where it is 0."""
    if power == 1:
        return distance
    if power == 2:
        return distance * (2 - distance)
    return 1 - bounded_power(1 - distance, power)


def bounded_power(value: Tensor, power: float, order: int = 1) -> Tensor:
    r"""``value**power`` with a bounded slope.

    .. math::
        u \cdot \max(u, f)^{a - 1}

    with :math:`u` the ``value`` and :math:`a` the ``power``. Below :math:`a = 1` the slope is
    infinite at 0; the floor :math:`f` puts the secant there. It is such that a length, of which
    the value is the ``order``-th power, has its slope raised to at most ``order * STEEPEST``. The
    result is exact at 0 and from :math:`f` on. Nothing is computed for a power of 1.

    Args:
        value: any shape, at least 0.
        power: above 0.
        order: how the value begins at 0: 1 as a length, 2 as a squared length.

    >>> bounded_power(torch.tensor([0., 0.25]), 0.5)
    tensor([0.0000, 0.5000])
    """
    if power == 1:
        return value
    if power > 1:
        return value.pow(power)
    return value * at_least(value, power_floor(power, order)).pow(power - 1)


def power_floor(power: float, order: int = 1) -> float:
    """The value below which `bounded_power` takes the secant, for powers below 1.

    >>> power_floor(0.5)
    0.00390625
    """
    missing = 1 - power * order
    if missing <= 0:
        # The slope is bounded anyway: the floor is there for 0 * infinity alone.
        return _SMALLEST
    floor: float = STEEPEST ** (-order / missing)
    return max(_SMALLEST, floor)
