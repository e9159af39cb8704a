"""Blocks of neighbouring priors, so that boxes are measured only against those that they touch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mmdet_ext.functional.numerics import chunks

__all__ = ['PriorBlocks', 'pairs_at_a_time']

#: Number of consecutive priors in a block.
BLOCK = 64

#: Floor of a union's area, px**2, as in mmdet.
_EPS = 1e-6


def pairs_at_a_time(size: int = BLOCK) -> int:
    """Return the number of pairs of a box and a block whose tables together fit the cache.

    Args:
        size: priors per block.
    """
    return max(1, chunks.TABLE_ELEMENTS // (4 * size))


@dataclass(frozen=True)
class PriorBlocks:
    """Priors as boxes, in blocks of consecutive ones.

    The last block is filled up with boxes that overlap nothing. Corners are kept as -x1, -y1, x2,
    y2, so that a single minimum cuts two boxes to their intersection.

    Attributes:
        corners: (S * N, 4, size) corners of S sets of N blocks, px.
        areas: (S * N, size) areas, px**2.
        bounds: (4, S, N) corners of the smallest box around each block, px.
    """

    corners: Tensor
    areas: Tensor
    bounds: Tensor

    @classmethod
    def of(cls, priors: Tensor, size: int = BLOCK) -> PriorBlocks:
        """Form blocks of sets of priors.

        Args:
            priors: (S, P, 4) corners, px: one set for all images, or one set per image.
            size: priors per block.
        """
        sets, total, _ = priors.shape
        if total % size:
            # From infinity to minus infinity: they meet nothing and widen no bounds.
            nothing = priors.new_tensor([torch.inf, torch.inf, -torch.inf, -torch.inf])
            priors = torch.cat([priors, nothing.expand(sets, -total % size, 4)], 1)
        corners = _outward(priors.reshape(-1, size, 4).transpose(1, 2))
        bounds = corners.amax(-1).view(sets, -1, 4)
        return cls(corners, _areas(corners), bounds.permute(2, 0, 1).contiguous())

    @property
    def count(self) -> int:
        """Number N of blocks per set."""
        return int(self.bounds.shape[2])

    @property
    def size(self) -> int:
        """Number of priors per block."""
        return int(self.areas.shape[1])

    def place(self, image: Tensor, block: Tensor) -> Tensor:
        """Return the index (M,) of blocks (M,) of images (M,) among the blocks of all sets."""
        return block if self.bounds.shape[1] == 1 else image * self.count + block

    def touched(
        self, boxes: Tensor, image: Tensor, every: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the pairs of a box and a block that can overlap, some at a time, box by box.

        Args:
            boxes: (R, 4) corners, px.
            image: (R,) image of each box.
            every: yield all pairs, for measures that need no overlap.

        Yields:
            tuple: row (M,) of the box and index (M,) of the block.
        """
        sides = _outward(boxes[..., None])
        for start, stop in chunks.row_chunks(len(boxes), self.count):
            one = self.bounds.shape[1] == 1
            x1, y1, x2, y2 = self.bounds if one else self.bounds[:, image[start:stop]]
            left, top, right, bottom = sides[start:stop].unbind(1)
            gap = torch.minimum(x2, right).add_(torch.minimum(x1, left))
            gap = torch.minimum(gap, torch.minimum(y2, bottom).add_(torch.minimum(y1, top)))
            hit = torch.ones_like(gap, dtype=torch.bool) if every else gap > 0
            row, block = hit.nonzero(as_tuple=True)
            most = pairs_at_a_time(self.size)
            for part in range(0, len(row), most):
                yield row[part : part + most] + start, block[part : part + most]

    def iou(self, boxes: Tensor, place: Tensor) -> Tensor:
        """Compute the IoU of boxes (M, 4) with the priors of the blocks at ``place`` (M,).

        Returns:
            Tensor: (M, size).
        """
        sides = _outward(boxes[..., None])
        corners = self.corners.index_select(0, place).clamp_(max=sides)
        width_height = corners[:, :2].add_(corners[:, 2:]).clamp_(min=0)
        shared = width_height[:, 0] * width_height[:, 1]
        union = self.areas.index_select(0, place).add_(_areas(sides))
        return shared.div_(union.sub_(shared).clamp_(min=_EPS))


def _outward(corners: Tensor) -> Tensor:
    """Return x1, y1, x2, y2 (dimension 1) as -x1, -y1, x2, y2, in new memory."""
    outward = corners.clone(memory_format=torch.contiguous_format)
    outward[:, :2].neg_()
    return outward


def _areas(outward: Tensor) -> Tensor:
    """Compute areas (M, size) from corners of `_outward`, at least 0."""
    sides = outward[:, :2] + outward[:, 2:]
    return (sides[:, 0] * sides[:, 1]).clamp_(min=0)
