"""Priors by blocks of neighbours, so that boxes are measured only against those that they touch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mmdet_ext.functional import matching
from mmdet_ext.functional.boxes import iou_of_planes

#: Priors next to each other that are looked at together.
BLOCK = 64


def pairs_at_a_time() -> int:
    """Pairs of a box and a block that are measured at a time: several tables fit the cache."""
    return max(1, matching.TABLE_ELEMENTS // (4 * BLOCK))


@dataclass(frozen=True)
class PriorBlocks:
    """Boxes of priors, BLOCK in a row to a block, the last one filled up with the last prior.

    Attributes:
        planes: x1, y1, x2, y2 and area of each, (5, S * N, BLOCK), px; S sets of N blocks.
        bounds: x1, y1, x2, y2 of the smallest box around each block, (4, S, N), px.
    """

    planes: Tensor
    bounds: Tensor

    @classmethod
    def of(cls, priors: Tensor) -> PriorBlocks:
        """Blocks of sets of priors (S, P, 4): one that all images share, or one an image."""
        sets, total, _ = priors.shape
        if total % BLOCK:
            priors = torch.cat([priors, priors[:, -1:].expand(-1, -total % BLOCK, 4)], 1)
        x1, y1, x2, y2 = corners = priors.permute(2, 0, 1).reshape(4, -1, BLOCK)
        planes = torch.cat([corners, ((x2 - x1) * (y2 - y1)).clamp_(min=0)[None]])
        bounds = torch.cat([corners[:2].amin(-1), corners[2:].amax(-1)])
        return cls(planes, bounds.view(4, sets, -1))

    @property
    def count(self) -> int:
        """N, blocks a set."""
        return int(self.bounds.shape[2])

    def place(self, image: Tensor, block: Tensor) -> Tensor:
        """Where the blocks of images stand among those of all sets."""
        return block if self.bounds.shape[1] == 1 else image * self.count + block

    def touched(
        self, boxes: Tensor, image: Tensor, every: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Boxes and blocks that can overlap, some at a time, box by box.

        Args:
            boxes: (R, 4) corners, px.
            image: (R,) of which image each is.
            every: all pairs, for measures that need no overlap.

        Yields:
            tuple: row among the boxes (M,) and block (M,).
        """
        for start, stop in matching.chunks(len(boxes), self.count):
            sets = image[start:stop] if self.bounds.shape[1] > 1 else [0]
            x1, y1, x2, y2 = self.bounds[:, sets]
            left, top, right, bottom = boxes[start:stop, :, None].unbind(1)
            gap = torch.minimum(x2, right).sub_(torch.maximum(x1, left))
            gap = torch.minimum(gap, torch.minimum(y2, bottom).sub_(torch.maximum(y1, top)))
            hit = torch.ones_like(gap, dtype=torch.bool) if every else gap > 0
            row, block = hit.nonzero(as_tuple=True)
            most = pairs_at_a_time()
            for part in range(0, len(row), most):
                yield row[part : part + most] + start, block[part : part + most]

    def iou(self, boxes: Tensor, place: Tensor) -> Tensor:
        """IoU of boxes (M, 4) with the priors of blocks at places (M,), (M, BLOCK)."""
        planes = [plane.index_select(0, place) for plane in self.planes]
        return iou_of_planes(planes, boxes[:, :, None].unbind(1))
