"""Assignment by cost, with a number of priors of each box's own: what SimOTA and its kin share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from mmdet_ext.functional.assignment.claims import BACKGROUND
from mmdet_ext.functional.boxes.overlap import iou_of_planes
from mmdet_ext.functional.numerics.chunks import largest_places, row_chunks

#: Added to an overlap before its logarithm is taken.
OVERLAP_EPS = 1e-7

#: An overlap measure of all pairs: boxes (G, 4), predicted boxes (N, 4) -> (G, N).
PairwiseMeasure = Callable[[Tensor, Tensor], Tensor]


def measured_pairs(measure: PairwiseMeasure, boxes: Tensor, predicted: Tensor) -> Tensor:
    """The measure of boxes (B, G, 4) and predicted ones (B, N, 4) of each image, (B, G, N)."""
    each = zip(boxes, predicted, strict=True)
    return torch.stack([measure(one, other) for one, other in each]).to(boxes.dtype)


class PairCosts(ABC):
    """What it costs to give priors to boxes, table by table.

    Attributes:
        points: x, y and stride of the priors, three of (1 or B, 1, N), px.
        planes: x1, y1, x2, y2 and area of their predicted boxes, five of (B, 1, N), px.
        boxes: (B, G, 4) corners, px.
        row: (B, G), which row of a class table is the box's label's.
        beyond: (B, 1, N), 0 for priors that may be given, infinity for others.
        measure: used in place of the IoU; None is the IoU.
    """

    def __init__(
        self,
        points: list[Tensor],
        planes: list[Tensor],
        boxes: Tensor,
        row: Tensor,
        beyond: Tensor,
        measure: PairwiseMeasure | None,
    ) -> None:
        self.points = points
        self.planes = planes
        self.boxes = boxes
        self.row = row
        self.beyond = beyond
        self.measure = measure

    @abstractmethod
    def cost(self, part: slice, overlap: Tensor) -> Tensor:
        """Costs (B, g, N) of a part of the boxes, by their overlaps (B, g, N)."""

    @abstractmethod
    def class_tables(self) -> list[Tensor]:
        """The tables (B, rows, N) that `cost` reads, for `at` to cut."""

    @abstractmethod
    def with_class_tables(self, tables: list[Tensor]) -> PairCosts:
        """A shallow copy with other tables."""

    def tables(self, part: slice) -> tuple[Tensor, Tensor]:
        """Costs and overlaps (B, g, N) of a part of the boxes."""
        if self.measure is None:
            overlap = iou_of_planes(self.planes, self.boxes[:, part, :, None].unbind(2))
        else:
            predicted = torch.cat(self.planes[:4], 1).transpose(1, 2)
            overlap = measured_pairs(self.measure, self.boxes[:, part], predicted)
        # Finite, however far a box is: it takes a prior all the same.
        most = torch.finfo(overlap.dtype).max
        cost = self.cost(part, overlap).clamp_(max=most).add_(self.beyond)
        return cost, overlap.mul_(self.beyond == 0)

    def at(self, index: Tensor) -> PairCosts:
        """The costs of the priors (B, n) alone."""

        def cut(table: Tensor) -> Tensor:
            table = table.expand(len(index), -1, -1)
            return table.gather(2, index[:, None].expand(-1, table.shape[1], -1))

        other = self.with_class_tables([cut(table) for table in self.class_tables()])
        other.points = [cut(plane) for plane in self.points]
        other.planes = [cut(plane) for plane in self.planes]
        other.beyond = cut(self.beyond)
        return other

    def parts(self) -> list[slice]:
        """The boxes, so many at a time that a table keeps within TABLE_ELEMENTS."""
        images, boxes = self.row.shape
        columns = images * self.beyond.shape[-1]
        return [slice(start, stop) for start, stop in row_chunks(boxes, columns)]


def dynamic_k_match(
    costs: PairCosts, gt_valid: Tensor, topk: int, index: Tensor, total: int
) -> tuple[Tensor, Tensor]:
    """Give each box its cheapest priors, as many as its ``topk`` overlaps sum to.

    Args:
        costs: of the N priors that take part.
        gt_valid: (B, G) bool.
        topk: largest overlaps that are summed.
        index: (N,), which of the ``total`` priors these are.
        total: P.

    Returns:
        tuple: gt_index (B, P), overlap (B, P).
    """
    images, boxes = gt_valid.shape
    count = costs.beyond.shape[-1]
    k = min(topk, count)
    candidates, overlaps, claims = [], [], []
    for part in costs.parts():
        cost, overlap = costs.tables(part)
        top = overlap.flatten(0, 1)
        # Summed over a leading dimension, as a table of priors x boxes would be.
        summed = top.gather(1, largest_places(top, k)).T.contiguous().sum(0)
        wanted = summed.int().clamp_(min=1).view(images, -1, 1)
        candidate = largest_places(cost.neg_().flatten(0, 1), k)
        rank = torch.arange(k, device=cost.device)
        finite = cost.flatten(0, 1).gather(1, candidate) > -torch.inf
        claims.append(finite.view(images, -1, k) & (rank < wanted) & gt_valid[:, part, None])
        candidates.append(candidate.view(images, -1, k))
        overlaps.append(top.gather(1, candidate).view(images, -1, k))
    candidate, overlap, claim = (torch.cat(part, 1) for part in (candidates, overlaps, claims))

    slot = candidate.where(claim, count).flatten(1)
    claimed = slot.new_zeros((images, count + 1)).scatter_add_(1, slot, torch.ones_like(slot))
    box = torch.arange(boxes, device=slot.device)[:, None].expand(candidate.shape[1:]).flatten()
    gt_index = torch.full_like(claimed, BACKGROUND)
    gt_index.scatter_(1, slot, box.expand(images, -1))
    found = overlap.new_zeros(claimed.shape).scatter_(1, slot, overlap.flatten(1))
    gt_index, found, claimed = (table[:, :count] for table in (gt_index, found, claimed))
    gt_index, found = _settled(costs, gt_valid, claimed > 1, gt_index, found)
    result = torch.full((images, total), BACKGROUND, device=slot.device)
    result[:, index] = gt_index
    result_overlap = found.new_zeros((images, total))
    result_overlap[:, index] = found
    return result, result_overlap


def _settled(
    costs: PairCosts, gt_valid: Tensor, wanted_mask: Tensor, gt_index: Tensor, overlap: Tensor
) -> tuple[Tensor, Tensor]:
    """Priors that several boxes want (B, N) go to that of the least cost of all boxes."""
    most = int(wanted_mask.sum(1).amax())
    if most == 0:
        return gt_index, overlap
    chosen = wanted_mask.int().topk(most, dim=1)
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


def without_padding(gt_boxes: Tensor, gt_valid: Tensor) -> Tensor:
    """Boxes (B, G, 4) with 0 in padded places: what is not a number would spread from there."""
    return gt_boxes.where(gt_valid[..., None], 0.0)


def used_priors(
    points: Tensor,
    gt_boxes: Tensor,
    gt_valid: Tensor,
    prior_valid: Tensor | None,
    nearness: Callable[[slice, Tensor, Tensor, Tensor], Tensor],
) -> tuple[Tensor, Tensor] | None:
    """The priors that are near a box in any image.

    Args:
        points: (P, 4).
        gt_boxes: (B, G, 4).
        gt_valid: (B, G).
        prior_valid: (B, P) or None.
        nearness: above 0 for the priors near a box: (part of the boxes, x, y, stride) ->
            (B, g, P).

    Returns:
        Indices (N,) of the priors, and (B, 1, N), infinity for those that an image does not use;
        None where there is none.
    """
    images, boxes = gt_valid.shape
    if boxes == 0 or len(points) == 0:
        return None
    x, y, stride, _ = points.T.contiguous()[:, None, None].unbind(0)
    near = points.new_full((images, len(points)), -torch.inf)
    far = points.new_zeros(gt_valid.shape).masked_fill_(~gt_valid, -torch.inf)
    for start, stop in row_chunks(boxes, images * len(points)):
        part = slice(start, stop)
        each = nearness(part, x, y, stride).add_(far[:, part, None])
        torch.maximum(near, each.amax(1), out=near)
    used = near > 0
    if prior_valid is not None:
        used &= prior_valid
    (index,) = used.any(0).nonzero(as_tuple=True)
    if len(index) == 0:
        return None
    beyond = points.new_zeros((images, len(index)))
    return index, beyond.masked_fill_(~used[:, index], torch.inf)[:, None]


def nothing_matched(pred_boxes: Tensor) -> tuple[Tensor, Tensor]:
    """All background, without overlap."""
    shape = pred_boxes.shape[:2]
    return (
        torch.full(shape, BACKGROUND, device=pred_boxes.device),
        pred_boxes.new_zeros(shape),
    )


def geometry_planes(points: Tensor, pred_boxes: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Coordinates of points (N, 4) and of predicted boxes (B, N, 4), plane by plane."""
    x, y, stride, _ = points.T.contiguous()[:, None, None].unbind(0)
    x1, y1, x2, y2 = pred_boxes.permute(2, 0, 1).contiguous()[:, :, None].unbind(0)
    return [x, y, stride], [x1, y1, x2, y2, (x2 - x1) * (y2 - y1)]


def inside(boxes: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """How far points lie inside boxes (B, g, 4), (B, g, N) px: at most 0 outside."""
    left, top, right, bottom = boxes[..., None].unbind(2)
    gap = x - left
    other = right - x
    torch.minimum(gap, other, out=gap)
    torch.minimum(gap, torch.sub(y, top, out=other), out=gap)
    return torch.minimum(gap, torch.sub(bottom, y, out=other), out=gap)


def rows_of(table: Tensor, row: Tensor, out: Tensor | None = None) -> Tensor:
    """Rows (B, g) of tables (B, rows, N), (B, g, N), into ``out`` where there is one."""
    images, rows, columns = table.shape
    first = rows * torch.arange(images, device=table.device)[:, None]
    flat = (first + row).flatten()
    into = None if out is None else out.view(-1, columns)
    picked = torch.index_select(table.reshape(-1, columns), 0, flat, out=into)
    return picked.view(images, -1, columns)
