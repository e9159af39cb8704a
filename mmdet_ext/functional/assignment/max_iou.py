"""Assignment of priors to the box of largest overlap, from the pairs that can overlap alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mmdet_ext.functional.assignment.claims import BACKGROUND, IGNORE
from mmdet_ext.functional.assignment.prior_blocks import BLOCK, PriorBlocks, pairs_at_a_time
from mmdet_ext.functional.numerics.precision import promote_half

#: An overlap measure of aligned pairs: boxes (N, 4), priors (N, 4) -> (N,).
Measure = Callable[[Tensor, Tensor], Tensor]


def max_iou_match(
    priors: Tensor,
    gt_boxes: Tensor,
    gt_valid: Tensor,
    pos_iou_thr: float,
    neg_iou_thr: float | tuple[float, float],
    min_pos_iou: float = 0.0,
    gt_max_assign_all: bool = True,
    match_low_quality: bool = True,
    ignore_mask: Tensor | None = None,
    measure: Measure | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Give each prior to the box it overlaps most, if it does so enough.

    With :math:`m_p` the largest overlap of prior p with any box: p is the box's if
    :math:`m_p \ge` ``pos_iou_thr``; background if ``neg_iou_thr[0]`` :math:`\le m_p <`
    ``neg_iou_thr[1]`` (a number is the upper end); else it is ignored. With
    ``match_low_quality``, afterwards each box whose largest overlap is at least ``min_pos_iou``
    takes the priors that reach it, the later box from the earlier.

    Only priors next to a box are ever measured: blocks of 64 priors in a row are passed over
    where the box around them does not touch. That pays where neighbours in the order are
    neighbours in the picture, as the anchors of a level are; any order gives the same result.

    Args:
        priors: (P, 4) corners, px, shared by the images; half precision is computed in float32.
        gt_boxes: (B, G, 4) corners, px.
        gt_valid: (B, G) bool, False on padding.
        pos_iou_thr: overlap from which on a prior is positive.
        neg_iou_thr: overlap below which it is background, or (from, below).
        min_pos_iou: least overlap for a match of low quality.
        gt_max_assign_all: a match of low quality takes all priors of that overlap; otherwise the
            first.
        match_low_quality: whether there are such matches.
        ignore_mask: (B, P) bool, priors that count for no box and are ignored; None for none.
        measure: used in place of the IoU, for all pairs.

    Returns:
        tuple: gt_index (B, P) int64, BACKGROUND (-1) and IGNORE (-2) beside the index of a box;
        overlap (B, P), the largest with any box, -1 where the ``ignore_mask`` is True.

    >>> priors = torch.tensor([[0., 0., 10., 10.], [10., 10., 20., 20.]])
    >>> boxes = torch.tensor([[[0., 0., 10., 9.]]])
    >>> max_iou_match(priors, boxes, torch.tensor([[True]]), 0.5, 0.5)
    (tensor([[ 0, -1]]), tensor([[0.9000, 0.0000]]))

    References:
        Ren et al., Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks,
        2015, section 3.1.2.
    """
    priors, gt_boxes = promote_half(priors, gt_boxes)
    images, total = len(gt_valid), len(priors)
    image, box = gt_valid.nonzero(as_tuple=True)
    if len(image) == 0 or total == 0:
        index = torch.full((images, total), BACKGROUND, device=priors.device)
        overlap = priors.new_zeros((images, total))
        if ignore_mask is None:
            return index, overlap
        return index.masked_fill(ignore_mask, IGNORE), overlap.masked_fill(ignore_mask, -1.0)
    pairs = _Pairs(priors, gt_boxes[image, box], image, ignore_mask, measure)
    overlap, best, box_best, reach = pairs.scan(images, box)

    low, high = (0.0, neg_iou_thr) if not isinstance(neg_iou_thr, tuple) else neg_iou_thr
    gt_index = torch.full_like(best, IGNORE)
    empty = ~gt_valid.any(1, keepdim=True)
    background = (overlap >= low) & (overlap < high) | (empty & (overlap >= 0))
    gt_index = gt_index.masked_fill(background, BACKGROUND)
    gt_index = best.where(overlap >= pos_iou_thr, gt_index)
    if match_low_quality:
        counted = box_best >= min_pos_iou
        taken = pairs.taken_by_boxes(images, box, box_best, counted, reach, gt_max_assign_all)
        gt_index = taken.where(taken >= 0, gt_index)
    return gt_index, overlap


class _Pairs:
    """Boxes in rows (R, 4) against blocks of priors, of those pairs that can overlap."""

    def __init__(
        self,
        priors: Tensor,
        boxes: Tensor,
        image: Tensor,
        ignore_mask: Tensor | None,
        measure: Measure | None,
    ) -> None:
        self.priors = priors
        self.boxes = boxes
        self.image = image
        self.measure = measure
        self.blocks = PriorBlocks.of(priors[None])
        self.ignored = None
        if ignore_mask is not None:
            fill = -priors.shape[0] % BLOCK
            padded = torch.nn.functional.pad(ignore_mask, (0, fill), value=True)
            self.ignored = padded.view(-1, BLOCK)  # rows: image * N + block

    def scan(self, images: int, box: Tensor) -> tuple[Tensor, Tensor, Tensor, Reach]:
        """The best box of each prior and the best overlap of each box.

        Returns:
            tuple: overlap (B, P), the best box's index (B, P), best overlap a row (R,), and what
            was measured.
        """
        count, device = self.blocks.count, self.boxes.device
        # Overlap and box in one number: the largest overlap wins, of equal ones the first box.
        best = torch.full((images * count, BLOCK), _NONE, device=device)
        box_best = self._least_overlap(images)
        found: list[Reach] = []
        every = self.measure is not None
        for row, block in self.blocks.touched(self.boxes, self.image, every):
            overlap = self.overlap(row, block)
            place = self.image[row] * count + block
            key = _key(overlap, box[row])
            best.scatter_reduce_(0, place[:, None].expand(-1, BLOCK), key, 'amax')
            peak = overlap.amax(1)
            box_best.scatter_reduce_(0, row, peak, 'amax')
            found.append(Reach(row, block, peak))
        total = len(self.priors)
        best = best.view(images, -1)[:, :total]
        overlap, index = _unpack(best)
        if self.ignored is not None:
            overlap = overlap.masked_fill(self.ignored.view(images, -1)[:, :total], -1.0)
        return overlap, index, box_best, Reach.joined(found, self.boxes)

    def taken_by_boxes(
        self,
        images: int,
        box: Tensor,
        box_best: Tensor,
        counted: Tensor,
        reach: Reach,
        every: bool,
    ) -> Tensor:
        """The last box that takes each prior by a match of low quality, -1 for none, (B, P)."""
        count, total = self.blocks.count, len(self.priors)
        size = count * BLOCK
        # One more place, past the priors, for what does not count.
        taken = torch.full((images * size + 1,), -1, device=box.device)
        touching = counted & (box_best > 0)
        chosen = touching[reach.row] & (reach.peak == box_best[reach.row])
        row, block = reach.row[chosen], reach.block[chosen]
        first = torch.full_like(box, size)
        most = pairs_at_a_time()
        for part in range(0, len(row), most):
            r, b = row[part : part + most], block[part : part + most]
            equal = self.overlap(r, b) == box_best[r, None]
            lane = b[:, None] * BLOCK + torch.arange(BLOCK, device=b.device)
            if every:
                place = (self.image[r, None] * size + lane).where(equal, images * size)
                taken.scatter_reduce_(
                    0, place.flatten(), box[r, None].expand_as(place).flatten(), 'amax'
                )
            else:
                lane = lane.where(equal, size).amin(1)
                first.scatter_reduce_(0, r, lane, 'amin')
        if not every:
            place = (self.image * size + first).where(touching & (first < size), images * size)
            taken.scatter_reduce_(0, place, box, 'amax')
        taken = taken[:-1].view(images, size)[:, :total]
        return self._taken_without_overlap(taken, box, counted & (box_best == 0), every)

    def _taken_without_overlap(
        self, taken: Tensor, box: Tensor, alone: Tensor, every: bool
    ) -> Tensor:
        """Boxes that overlap nothing, and need not: all priors (or the first) reach their 0."""
        last = torch.full((len(taken),), -1, device=box.device)
        last.scatter_reduce_(0, self.image, box.where(alone, -1), 'amax')
        free = torch.ones_like(taken, dtype=torch.bool)
        if self.ignored is not None:
            free = ~self.ignored.view(len(taken), -1)[:, : taken.shape[1]]
        if not every:
            free = free & (free.cumsum(1) == 1)
        return torch.maximum(taken, last[:, None].where(free, -1))

    def overlap(self, row: Tensor, block: Tensor) -> Tensor:
        """Overlaps of rows (M,) with the priors of blocks (M,), (M, BLOCK); -1 where ignored."""
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
        assert self.measure is not None
        lane = block[:, None] * BLOCK + torch.arange(BLOCK, device=block.device)
        inside = lane < len(self.priors)
        prior = self.priors[lane.clamp(max=len(self.priors) - 1).flatten()]
        boxes = self.boxes[row].repeat_interleave(BLOCK, 0)
        value = self.measure(boxes, prior).to(self.boxes.dtype).view(-1, BLOCK)
        return value.masked_fill(~inside, -1.0)

    def _least_overlap(self, images: int) -> Tensor:
        """What each box reaches at least, (R,): 0 with the priors that it does not touch."""
        if self.measure is not None:
            return self.boxes.new_full((len(self.boxes),), -torch.inf)
        least = self.boxes.new_zeros(len(self.boxes))
        if self.ignored is None:
            return least
        return least.masked_fill(self.ignored.view(images, -1).all(1)[self.image], -1.0)


@dataclass(frozen=True)
class Reach:
    """Measured pairs of a box and a block, with the largest overlap in each, (M,) each."""

    row: Tensor
    block: Tensor
    peak: Tensor

    @classmethod
    def joined(cls, parts: list[Reach], boxes: Tensor) -> Reach:
        """All parts in one."""
        if not parts:
            none = torch.empty(0, dtype=torch.int64, device=boxes.device)
            return cls(none, none, boxes.new_empty(0))
        return cls(
            torch.cat([part.row for part in parts]),
            torch.cat([part.block for part in parts]),
            torch.cat([part.peak for part in parts]),
        )


_INDEX_BITS = 32
_INDEX_MASK = (1 << _INDEX_BITS) - 1
#: An overlap of 0 with box 0: what a prior has that no box comes near.
_NONE = _INDEX_MASK


def _key(overlap: Tensor, box: Tensor) -> Tensor:
    """Numbers in the order of the overlaps (M, BLOCK), of equal ones the first box leading."""
    bits = overlap.float().view(torch.int32)
    # The bits of floats from 0 are in their order; below 0 all come after them, as one.
    order = bits.clamp(min=-1).long() << _INDEX_BITS
    return order.add_((_INDEX_MASK - box)[:, None])


def _unpack(key: Tensor) -> tuple[Tensor, Tensor]:
    """Overlaps and boxes of keys; below 0 the overlap is not told."""
    overlap = (key >> _INDEX_BITS).int().view(torch.float32)
    index = _INDEX_MASK - (key & _INDEX_MASK)
    # Without overlap the first box is as good as any.
    return overlap, index.where(overlap > 0, 0)
