"""Assignment by cost with a dynamic number of priors per box, shared by SimOTA and soft label.

1. Priors that are near no box take no part.
2. Each box wants k priors: the sum of its largest overlaps with the predicted boxes, rounded
   down, at least 1.
3. Each box claims the k priors that cost it least.
4. A prior that several boxes claim goes to the box of all that it costs least.

The rules differ in the cost, which they write as a subclass of `PairCosts`, and in what is near.
Tables have the layout (B, G, N): images, boxes, priors that take part. They are computed for some
boxes at a time, so that memory stays bounded; no table has classes as a further dimension.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from mmdet_ext.functional.assignment.assignment import Assignment
from mmdet_ext.functional.assignment.claims import BACKGROUND, mark_ignored
from mmdet_ext.functional.assignment.geometry import BatchGeometry
from mmdet_ext.functional.boxes.overlap import iou_of_planes
from mmdet_ext.functional.numerics.chunks import largest_places, row_chunks

__all__ = [
    'PairCosts',
    'PairwiseMeasure',
    'PriorPart',
    'dynamic_k_match',
    'label_rows',
    'measured_pairs',
    'priors_near_boxes',
    'rows_of',
    'without_padding',
]

#: Added to an overlap before its logarithm is taken.
OVERLAP_EPS = 1e-7

#: Overlap measure of all pairs: boxes (G, 4), predicted boxes (N, 4) -> (G, N).
PairwiseMeasure = Callable[[Tensor, Tensor], Tensor]

_Costs = TypeVar('_Costs', bound='PairCosts')


@dataclass(frozen=True, eq=False)
class PriorPart:
    """The priors that take part in an assignment.

    Attributes:
        index: (N,) their indices among all priors.
        points: x, y and stride, three of (1 or B, 1, N), px.
        planes: x1, y1, x2, y2 and area of their predicted boxes, five of (B, 1, N), px.
        beyond: (B, 1, N), 0 for priors that the image uses, infinity for others.
    """

    index: Tensor
    points: list[Tensor]
    planes: list[Tensor]
    beyond: Tensor


def priors_near_boxes(
    geometry: BatchGeometry,
    gt_boxes: Tensor,
    pred_boxes: Tensor,
    nearness: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
) -> PriorPart | None:
    """Find the priors that are near a box in any image.

    Args:
        geometry: priors as points.
        gt_boxes: (B, G, 4) corners, finite on padding too, px.
        pred_boxes: (B, P, 4) corners, px.
        nearness: (boxes (B, g, 4), x, y, stride (1, 1, P)) -> (B, g, P), above 0 for the priors
            near a box.

    Returns:
        PriorPart | None: None where no prior is near a box.
    """
    images, boxes, total = geometry.shape
    if boxes == 0 or total == 0:
        return None
    points, strides = (part.to(gt_boxes.dtype) for part in geometry.priors.as_points())
    table = torch.cat([points, strides[:, :1]], 1)
    x, y, stride = table.T.contiguous()[:, None, None].unbind(0)
    near = table.new_full((images, total), -torch.inf)
    padding = table.new_zeros((images, boxes)).masked_fill_(~geometry.gt_valid, -torch.inf)
    for start, stop in row_chunks(boxes, images * total):
        part = slice(start, stop)
        each = nearness(gt_boxes[:, part], x, y, stride).add_(padding[:, part, None])
        torch.maximum(near, each.amax(1), out=near)
    used = near > 0
    if geometry.prior_valid is not None:
        used &= geometry.prior_valid
    (index,) = used.any(0).nonzero(as_tuple=True)
    if len(index) == 0:
        return None
    beyond = table.new_zeros((images, len(index))).masked_fill_(~used[:, index], torch.inf)
    x1, y1, x2, y2 = pred_boxes[:, index].permute(2, 0, 1).contiguous()[:, :, None].unbind(0)
    return PriorPart(
        index,
        list(table[index].T.contiguous()[:, None, None].unbind(0)),
        [x1, y1, x2, y2, (x2 - x1) * (y2 - y1)],
        beyond[:, None],
    )


@dataclass(eq=False)
class PairCosts(ABC):
    """Cost of giving each prior to each box, computed for some boxes at a time.

    Attributes:
        priors: the N priors that take part.
        boxes: (B, G, 4) corners, px.
        row: (B, G) row of each box's label in the ``label_tables``.
        label_tables: tables (B, rows, N), one row for each label that occurs.
        measure: used in place of the IoU; None for the IoU.
    """

    priors: PriorPart
    boxes: Tensor
    row: Tensor
    label_tables: list[Tensor]
    measure: PairwiseMeasure | None

    @abstractmethod
    def cost(self, part: slice, overlap: Tensor) -> Tensor:
        """Compute the costs (B, g, N) of a part of the boxes.

        Args:
            part: the boxes.
            overlap: (B, g, N).
        """

    def tables(self, part: slice) -> tuple[Tensor, Tensor]:
        """Compute costs and overlaps, (B, g, N) each, of a part of the boxes.

        A prior that the image does not use has an infinite cost and overlap 0.
        """
        if self.measure is None:
            overlap = iou_of_planes(self.priors.planes, self.boxes[:, part, :, None].unbind(2))
        else:
            predicted = torch.cat(self.priors.planes[:4], 1).transpose(1, 2)
            overlap = measured_pairs(self.measure, self.boxes[:, part], predicted)
        # The cost stays finite, so that a box far from all priors takes one nevertheless.
        most = torch.finfo(overlap.dtype).max
        beyond = self.priors.beyond
        cost = self.cost(part, overlap).clamp_(max=most).add_(beyond)
        return cost, overlap.mul_(beyond == 0)

    def at(self: _Costs, index: Tensor) -> _Costs:
        """Return the costs of the priors (B, n) alone, a different choice in each image."""

        def cut(table: Tensor) -> Tensor:
            table = table.expand(len(index), -1, -1)
            return table.gather(2, index[:, None].expand(-1, table.shape[1], -1))

        priors = replace(
            self.priors,
            points=[cut(plane) for plane in self.priors.points],
            planes=[cut(plane) for plane in self.priors.planes],
            beyond=cut(self.priors.beyond),
        )
        tables = [cut(table) for table in self.label_tables]
        return replace(self, priors=priors, label_tables=tables)

    def parts(self) -> list[slice]:
        """Return slices of the boxes whose tables keep within the size of a chunk."""
        images, boxes = self.row.shape
        columns = images * self.priors.beyond.shape[-1]
        return [slice(start, stop) for start, stop in row_chunks(boxes, columns)]


def dynamic_k_match(costs: PairCosts, geometry: BatchGeometry, topk: int) -> Assignment:
    """Give each box its cheapest priors, as many as its ``topk`` largest overlaps sum to.

    Args:
        costs: of the priors that take part.
        geometry: the batch.
        topk: number of overlaps that are summed.

    Returns:
        Assignment: ``overlap`` is that of the predicted box.
    """
    images, boxes, total = geometry.shape
    index = costs.priors.index
    count = len(index)

    # 2. and 3. The claims of each box.
    candidate, overlap, claim = _claims(costs, geometry.gt_valid, min(topk, count))
    slot = candidate.where(claim, count).flatten(1)
    claimed = slot.new_zeros((images, count + 1)).scatter_add_(1, slot, torch.ones_like(slot))
    box = torch.arange(boxes, device=slot.device)[:, None].expand(candidate.shape[1:]).flatten()
    gt_index = torch.full_like(claimed, BACKGROUND)
    gt_index.scatter_(1, slot, box.expand(images, -1))
    found = overlap.new_zeros(claimed.shape).scatter_(1, slot, overlap.flatten(1))

    # 4. One box per prior.
    gt_index, found, claimed = (table[:, :count] for table in (gt_index, found, claimed))
    gt_index, found = _settle(costs, geometry.gt_valid, claimed > 1, gt_index, found)

    result = torch.full((images, total), BACKGROUND, device=slot.device)
    result[:, index] = gt_index
    result_overlap = found.new_zeros((images, total))
    result_overlap[:, index] = found
    return Assignment(mark_ignored(result, geometry.unused_priors()), result_overlap)


def _claims(costs: PairCosts, gt_valid: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Find the ``k`` cheapest priors of each box, and those of them that it claims.

    Returns:
        tuple: candidates (B, G, k) among the priors that take part, their overlaps, and bool.
    """
    images = len(gt_valid)
    candidates, overlaps, claims = [], [], []
    for part in costs.parts():
        cost, overlap = costs.tables(part)
        top = overlap.flatten(0, 1)
        # Summed over a leading dimension, in the order of a table of priors x boxes, so that
        # sums are rounded as mmdet's are.
        summed = top.gather(1, largest_places(top, k)).T.contiguous().sum(0)
        wanted = summed.int().clamp_(min=1).view(images, -1, 1)
        candidate = largest_places(cost.neg_().flatten(0, 1), k)
        rank = torch.arange(k, device=cost.device)
        finite = cost.flatten(0, 1).gather(1, candidate) > -torch.inf
        claims.append(finite.view(images, -1, k) & (rank < wanted) & gt_valid[:, part, None])
        candidates.append(candidate.view(images, -1, k))
        overlaps.append(top.gather(1, candidate).view(images, -1, k))
    return torch.cat(candidates, 1), torch.cat(overlaps, 1), torch.cat(claims, 1)


def _settle(
    costs: PairCosts, gt_valid: Tensor, disputed_mask: Tensor, gt_index: Tensor, overlap: Tensor
) -> tuple[Tensor, Tensor]:
    """Give the priors (B, N) that several boxes claim to the box of all that they cost least."""
    most = int(disputed_mask.sum(1).amax())
    if most == 0:
        return gt_index, overlap
    chosen = disputed_mask.int().topk(most, dim=1)
    prior, real = chosen.indices, chosen.values > 0
    disputed = costs.at(prior)
    least = overlap.new_full(prior.shape, torch.inf)
    winner, its_overlap = torch.zeros_like(prior), torch.zeros_like(least)
    for part in disputed.parts():
        cost, overlaps = disputed.tables(part)
        cost.masked_fill_(~gt_valid[:, part, None], torch.inf)
        value, box = cost.min(1)
        better = value < least
        least = torch.where(better, value, least)
        winner = torch.where(better, box + part.start, winner)
        its_overlap = torch.where(better, overlaps.gather(1, box[:, None])[:, 0], its_overlap)
    return (
        gt_index.scatter(1, prior, winner.where(real, gt_index.gather(1, prior))),
        overlap.scatter(1, prior, its_overlap.where(real, overlap.gather(1, prior))),
    )


def label_rows(gt_labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """List the labels that occur, and the place of each box's label in the list.

    Args:
        gt_labels: (B, G) int64; padding may hold any label.
        classes: number of classes.

    Returns:
        tuple: labels (R,), ascending, and the place (B, G) of each box's label among them.
    """
    labels, row = gt_labels.clamp(0, classes - 1).unique(return_inverse=True)
    return labels, row


def rows_of(table: Tensor, row: Tensor) -> Tensor:
    """Pick rows (B, g) of tables (B, rows, N), (B, g, N)."""
    images, rows, columns = table.shape
    first = rows * torch.arange(images, device=table.device)[:, None]
    picked = torch.index_select(table.reshape(-1, columns), 0, (first + row).flatten())
    return picked.view(images, -1, columns)


def measured_pairs(measure: PairwiseMeasure, boxes: Tensor, predicted: Tensor) -> Tensor:
    """Measure boxes (B, G, 4) against predicted boxes (B, N, 4), image by image: (B, G, N)."""
    each = zip(boxes, predicted, strict=True)
    return torch.stack([measure(one, other) for one, other in each]).to(boxes.dtype)


def without_padding(gt_boxes: Tensor, gt_valid: Tensor) -> Tensor:
    """Return boxes (B, G, 4) with 0 on padding, from where a NaN would spread."""
    return gt_boxes.where(gt_valid[..., None], 0.0)
