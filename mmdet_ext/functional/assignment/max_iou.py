"""Assignment of each prior to the box that it overlaps most, as in Faster R-CNN and RetinaNet.

1. Measure the overlap of boxes with priors, block by block, passing over the blocks of priors
   that a box does not touch.
2. Keep for each prior its largest overlap and that box, and for each box its largest overlap.
3. A prior whose overlap reaches the positive threshold gets its box.
4. A prior whose overlap lies in the range of background is background; the rest is ignored.
5. With ``match_low_quality``, each box also takes the priors that reach its own largest overlap.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mmdet_ext.functional.assignment.assignment import Assignment, assign_nothing
from mmdet_ext.functional.assignment.claims import BACKGROUND, IGNORE
from mmdet_ext.functional.assignment.geometry import BatchGeometry
from mmdet_ext.functional.assignment.prior_blocks import BLOCK, PriorBlocks, pairs_at_a_time
from mmdet_ext.functional.numerics.precision import promote_half

__all__ = ['AlignedMeasure', 'max_iou_match']

#: Overlap measure of aligned pairs: boxes (N, 4), priors (N, 4) -> (N,).
AlignedMeasure = Callable[[Tensor, Tensor], Tensor]


def max_iou_match(
    geometry: BatchGeometry,
    pos_iou_thr: float,
    neg_iou_thr: float | tuple[float, float],
    min_pos_iou: float = 0.0,
    gt_max_assign_all: bool = True,
    match_low_quality: bool = True,
    ignore_mask: Tensor | None = None,
    measure: AlignedMeasure | None = None,
) -> Assignment:
    r"""Assign each prior to the box that it overlaps most, where the overlap suffices.

    With :math:`m_p` the largest overlap of prior p with any box, p

    - gets that box if :math:`m_p \ge` ``pos_iou_thr``;
    - is background if ``neg_iou_thr[0]`` :math:`\le m_p <` ``neg_iou_thr[1]`` (a single number
      is the upper end, with 0 as the lower);
    - is ignored otherwise.

    With ``match_low_quality``, each box whose largest overlap is at least ``min_pos_iou`` then
    takes the priors that reach this overlap; a later box takes a prior from an earlier one.

    Blocks of 64 consecutive priors are passed over where the rectangle around them does not touch
    the box. That saves most of the work where consecutive priors are neighbours on the image, as
    the anchors of a level are. Any order gives the same result.

    Args:
        geometry: priors as corners; half precision is computed in float32.
        pos_iou_thr: overlap from which a prior is positive.
        neg_iou_thr: overlap below which a prior is background, or (from, below).
        min_pos_iou: least overlap for a match of low quality.
        gt_max_assign_all: True for a box to take all priors of its largest overlap, False for the
            first of them.
        match_low_quality: whether boxes take their best priors as above.
        ignore_mask: (B, P) bool, priors that get no box and are ignored; None for none.
        measure: overlap used in place of the IoU, for all pairs.

    Returns:
        Assignment: ``overlap`` is the largest with any box, and -1 for priors of the
        ``ignore_mask`` and those that the image does not have.

    >>> from mmdet_ext.functional.assignment.geometry import Priors
    >>> priors = Priors(corners=torch.tensor([[0., 0., 10., 10.], [10., 10., 20., 20.]]))
    >>> boxes, labels = torch.tensor([[0., 0., 10., 9.]]), torch.tensor([3])
    >>> result = max_iou_match(BatchGeometry.from_lists(priors, [boxes], [labels]), 0.5, 0.5)
    >>> result.gt_index, result.overlap
    (tensor([[ 0, -1]]), tensor([[0.9000, 0.0000]]))

    References:
        Ren et al., Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks,
        2015, section 3.1.2.
    """
    priors, gt_boxes = promote_half(geometry.priors.as_corners(), geometry.gt_boxes)
    images, _, total = geometry.shape
    ignored = geometry.unused_priors(ignore_mask)
    image, box = geometry.gt_valid.nonzero(as_tuple=True)
    if len(image) == 0 or total == 0:
        nothing = assign_nothing(geometry, priors, ignore_mask)
        return Assignment(nothing.gt_index, nothing.overlap.masked_fill(nothing.ignore_mask, -1.0))

    # 1. and 2. Largest overlaps of priors and boxes.
    pairs = _Pairs(priors, gt_boxes[image, box], image, box, ignored, measure)
    found = pairs.scan(images)
    overlap = found.overlap

    # 3. and 4. Positive, background or ignored.
    low, high = (0.0, neg_iou_thr) if not isinstance(neg_iou_thr, tuple) else neg_iou_thr
    gt_index = torch.full_like(found.index, IGNORE)
    empty = ~geometry.gt_valid.any(1, keepdim=True)
    background = (overlap >= low) & (overlap < high) | (empty & (overlap >= 0))
    gt_index = gt_index.masked_fill(background, BACKGROUND)
    gt_index = found.index.where(overlap >= pos_iou_thr, gt_index)

    # 5. Matches of low quality.
    if match_low_quality:
        taken = pairs.taken_by_boxes(images, found, min_pos_iou, gt_max_assign_all)
        gt_index = taken.where(taken >= 0, gt_index)
    return Assignment(gt_index, overlap)


@dataclass(frozen=True)
class _Scan:
    """Largest overlaps, and the measured pairs of a box and a block of priors.

    Attributes:
        overlap: (B, P) largest overlap of each prior.
        index: (B, P) box of that overlap.
        box_best: (R,) largest overlap of each box.
        row: (M,) box of each measured pair.
        block: (M,) block of each measured pair.
        peak: (M,) largest overlap within each measured pair.
    """

    overlap: Tensor
    index: Tensor
    box_best: Tensor
    row: Tensor
    block: Tensor
    peak: Tensor


class _Pairs:
    """Pairs of a box and a block of priors, for R boxes of all images in rows.

    Attributes:
        priors: (P, 4).
        boxes: (R, 4).
        image: (R,) image of each box.
        box: (R,) index of each box within its image.
        measure: overlap in place of the IoU; None for the IoU.
        blocks: the priors in blocks.
        ignored: (B * N, BLOCK) bool, priors that get no box, block by block; None for none.
    """

    def __init__(
        self,
        priors: Tensor,
        boxes: Tensor,
        image: Tensor,
        box: Tensor,
        ignore_mask: Tensor | None,
        measure: AlignedMeasure | None,
    ) -> None:
        self.priors = priors
        self.boxes = boxes
        self.image = image
        self.box = box
        self.measure = measure
        self.blocks = PriorBlocks.of(priors[None])
        self.ignored = None
        if ignore_mask is not None:
            fill = -priors.shape[0] % BLOCK
            padded = torch.nn.functional.pad(ignore_mask, (0, fill), value=True)
            self.ignored = padded.view(-1, BLOCK)

    def scan(self, images: int) -> _Scan:
        """Measure all pairs that can overlap, and keep the largest overlaps."""
        count, device = self.blocks.count, self.boxes.device
        # The maximum of these keys finds overlap and box at once.
        best = torch.full((images * count, BLOCK), _NO_BOX, device=device)
        box_best = self._least_overlap(images)
        none = torch.empty(0, dtype=torch.int64, device=device)
        rows, blocks, peaks = [none], [none], [self.boxes.new_empty(0)]
        every = self.measure is not None
        for row, block in self.blocks.touched(self.boxes, self.image, every):
            overlap = self.overlap(row, block)
            place = self.image[row] * count + block
            key = _key(overlap, self.box[row])
            best.scatter_reduce_(0, place[:, None].expand(-1, BLOCK), key, 'amax')
            peak = overlap.amax(1)
            box_best.scatter_reduce_(0, row, peak, 'amax')
            rows.append(row)
            blocks.append(block)
            peaks.append(peak)
        total = len(self.priors)
        best = best.view(images, -1)[:, :total]
        overlap, index = _unpack(best)
        if self.ignored is not None:
            overlap = overlap.masked_fill(self.ignored.view(images, -1)[:, :total], -1.0)
        return _Scan(overlap, index, box_best, *map(torch.cat, (rows, blocks, peaks)))

    def taken_by_boxes(self, images: int, found: _Scan, least: float, every: bool) -> Tensor:
        """Find the last box that takes each prior by a match of low quality.

        Args:
            images: B.
            found: what `scan` returns.
            least: smallest overlap of a match.
            every: True for all priors of the box's largest overlap, False for the first.

        Returns:
            Tensor: (B, P) index of the box, -1 for none.
        """
        total = len(self.priors)
        size = self.blocks.count * BLOCK
        box_best = found.box_best
        # One slot past the priors takes what does not count.
        taken = torch.full((images * size + 1,), -1, device=self.box.device)
        counted = box_best >= least
        touching = counted & (box_best > 0)
        chosen = touching[found.row] & (found.peak == box_best[found.row])
        row, block = found.row[chosen], found.block[chosen]
        first = torch.full_like(self.box, size)
        most = pairs_at_a_time()
        for part in range(0, len(row), most):
            r, b = row[part : part + most], block[part : part + most]
            equal = self.overlap(r, b) == box_best[r, None]
            lane = b[:, None] * BLOCK + torch.arange(BLOCK, device=b.device)
            if every:
                place = (self.image[r, None] * size + lane).where(equal, images * size)
                box = self.box[r, None].expand_as(place)
                taken.scatter_reduce_(0, place.flatten(), box.flatten(), 'amax')
            else:
                lane = lane.where(equal, size).amin(1)
                first.scatter_reduce_(0, r, lane, 'amin')
        if not every:
            place = (self.image * size + first).where(touching & (first < size), images * size)
            taken.scatter_reduce_(0, place, self.box, 'amax')
        taken = taken[:-1].view(images, size)[:, :total]
        return self._taken_without_overlap(taken, counted & (box_best == 0), every)

    def _taken_without_overlap(self, taken: Tensor, alone: Tensor, every: bool) -> Tensor:
        """Add the boxes that touch no prior: all priors, or the first, reach their overlap of 0."""
        last = torch.full((len(taken),), -1, device=self.box.device)
        last.scatter_reduce_(0, self.image, self.box.where(alone, -1), 'amax')
        free = torch.ones_like(taken, dtype=torch.bool)
        if self.ignored is not None:
            free = ~self.ignored.view(len(taken), -1)[:, : taken.shape[1]]
        if not every:
            free = free & (free.cumsum(1) == 1)
        return torch.maximum(taken, last[:, None].where(free, -1))

    def overlap(self, row: Tensor, block: Tensor) -> Tensor:
        """Measure boxes (M,) against the priors of blocks (M,): (M, BLOCK), -1 where ignored."""
        overlap = (
            self.blocks.iou(self.boxes[row], block)
            if self.measure is None
            else self._measured(row, block)
        )
        if self.ignored is not None:
            ignored = self.ignored[self.image[row] * self.blocks.count + block]
            overlap.masked_fill_(ignored, -1.0)
        return overlap

    def _measured(self, row: Tensor, block: Tensor) -> Tensor:
        """Measure by the given measure, pair by pair."""
        assert self.measure is not None
        lane = block[:, None] * BLOCK + torch.arange(BLOCK, device=block.device)
        inside = lane < len(self.priors)
        prior = self.priors[lane.clamp(max=len(self.priors) - 1).flatten()]
        boxes = self.boxes[row].repeat_interleave(BLOCK, 0)
        value = self.measure(boxes, prior).to(self.boxes.dtype).view(-1, BLOCK)
        return value.masked_fill(~inside, -1.0)

    def _least_overlap(self, images: int) -> Tensor:
        """Return the overlap (R,) that each box reaches at least: 0, with priors not touched."""
        if self.measure is not None:
            return self.boxes.new_full((len(self.boxes),), -torch.inf)
        least = self.boxes.new_zeros(len(self.boxes))
        if self.ignored is None:
            return least
        return least.masked_fill(self.ignored.view(images, -1).all(1)[self.image], -1.0)


_INDEX_BITS = 32
_INDEX_MASK = (1 << _INDEX_BITS) - 1
#: Key of an overlap of 0 with box 0: that of a prior which no box touches.
_NO_BOX = _INDEX_MASK


def _key(overlap: Tensor, box: Tensor) -> Tensor:
    """Pack overlaps (M, BLOCK) and boxes (M,) into integers of the overlaps' order.

    Of equal overlaps, the first box has the largest key.
    """
    bits = overlap.float().view(torch.int32)
    # The bits of non-negative floats are in the order of the floats. Negative ones all become -1.
    order = bits.clamp(min=-1).long() << _INDEX_BITS
    return order.add_((_INDEX_MASK - box)[:, None])


def _unpack(key: Tensor) -> tuple[Tensor, Tensor]:
    """Return overlaps and boxes of keys. A negative overlap is lost."""
    overlap = (key >> _INDEX_BITS).int().view(torch.float32)
    index = _INDEX_MASK - (key & _INDEX_MASK)
    # Without overlap the box does not matter; mmdet has the first.
    return overlap, index.where(overlap > 0, 0)
