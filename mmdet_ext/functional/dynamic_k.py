"""Assignment by cost with a number of priors of each box's own: SimOTA and dynamic soft label."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import softplus

from mmdet_ext.functional import matching
from mmdet_ext.functional.boxes import box_centers, iou_of_planes, promote_half
from mmdet_ext.functional.matching import BACKGROUND, largest

#: Added to an overlap before its logarithm is taken.
OVERLAP_EPS = 1e-7

#: What SimOTA adds to the cost of a prior outside of the box or its centre region.
OUTSIDE_COST = 1e5

#: A logarithm of a probability counts as at least minus this.
LOG_CLAMP = 100.0

#: An overlap measure of all pairs: boxes (G, 4), predicted boxes (N, 4) -> (G, N).
PairwiseMeasure = Callable[[Tensor, Tensor], Tensor]


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
            each = zip(self.boxes[:, part], predicted, strict=True)
            overlap = torch.stack([self.measure(one, other) for one, other in each])
            overlap = overlap.to(self.boxes.dtype)
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
        return [slice(start, stop) for start, stop in matching.chunks(boxes, columns)]


def simota_match(
    points: Tensor,
    pred_boxes: Tensor,
    scores: Tensor,
    gt_boxes: Tensor,
    gt_labels: Tensor,
    gt_valid: Tensor,
    center_radius: float = 2.5,
    candidate_topk: int = 10,
    iou_weight: float = 3.0,
    cls_weight: float = 1.0,
    prior_valid: Tensor | None = None,
    measure: PairwiseMeasure | None = None,
) -> tuple[Tensor, Tensor]:
    r"""SimOTA: each box takes the priors of least cost, as many as its overlaps sum to.

    .. math::
        c = w_c \, BCE(s, y) - w_i \ln(IoU + 10^{-7}) + 10^5 [\text{outside}]

    with :math:`s` a prior's ``scores`` and :math:`y` the box's label over all classes,
    :math:`w_c, w_i` = ``cls_weight, iou_weight``, and "outside" for points not in both the box and
    the square of ``center_radius`` strides about its centre. Points in neither of any box take no
    part. A box takes :math:`k = \max(1, \lfloor \sum IoU \rfloor)` priors, summed over its
    ``candidate_topk`` largest; a prior taken by several is that of the least cost of all boxes.

    The cross entropy over the classes is a sum over all of them, once a prior, and a difference
    for the label: no table has priors, boxes and classes.

    Args:
        points: (P, 4): x, y, stride, stride, px, shared by the images.
        pred_boxes: (B, P, 4) corners, px; half precision is computed in float32.
        scores: (B, P, C) probabilities.
        gt_boxes: (B, G, 4) corners, px.
        gt_labels: (B, G) int64.
        gt_valid: (B, G) bool, False on padding.
        center_radius: strides.
        candidate_topk: overlaps that k is summed over.
        iou_weight: factor.
        cls_weight: factor.
        prior_valid: (B, P) bool, priors that take part; None is all.
        measure: used in place of the IoU.

    Returns:
        tuple: gt_index (B, P) int64, BACKGROUND (-1) beside the index of a box; overlap (B, P) of
        the predicted box with it, 0 where there is none.

    References:
        Ge et al., YOLOX: Exceeding YOLO Series in 2021, 2021, section 2.1, "SimOTA".
    """
    points, pred_boxes, scores, gt_boxes = promote_half(points, pred_boxes, scores, gt_boxes)

    def nearness(part: slice, x: Tensor, y: Tensor, stride: Tensor) -> Tensor:
        boxes = gt_boxes[:, part]
        near = torch.maximum(
            inside(boxes, x, y), inside_center(boxes, x, y, stride, center_radius)
        )
        return near

    used = used_priors(points, gt_boxes, gt_valid, prior_valid, nearness)
    if used is None:
        return nothing_matched(pred_boxes)
    index, beyond = used
    label_rows, row = gt_labels.clamp(0, scores.shape[-1] - 1).unique(return_inverse=True)
    chosen = scores[:, index]
    missed = torch.log1p(-chosen).clamp_(min=-LOG_CLAMP)
    # What the label's class costs more as a yes than as a no.
    label_cost = missed[..., label_rows] - chosen[..., label_rows].log().clamp_(min=-LOG_CLAMP)
    costs = SimOTACosts(
        *geometry_planes(points[index], pred_boxes[:, index]), gt_boxes, row, beyond, measure
    )
    costs.class_cost = (label_cost - missed.sum(-1, keepdim=True)).mT.contiguous()
    costs.weights = cls_weight, iou_weight
    costs.center_radius = center_radius
    return dynamic_k_match(costs, gt_valid, candidate_topk, index, len(points))


class SimOTACosts(PairCosts):
    """Costs of `simota_match`.

    Attributes:
        class_cost: (B, rows, N), a row a label.
        weights: of class cost and overlap cost.
        center_radius: strides.
    """

    class_cost: Tensor
    weights: tuple[float, float]
    center_radius: float

    def cost(self, part: slice, overlap: Tensor) -> Tensor:
        """As PairCosts."""
        cls_weight, iou_weight = self.weights
        cost = (overlap + OVERLAP_EPS).log_().mul_(-iou_weight)
        cost.add_(rows_of(self.class_cost, self.row[:, part]), alpha=cls_weight)
        boxes, (x, y, stride) = self.boxes[:, part], self.points
        within = inside(boxes, x, y)
        torch.minimum(
            within, inside_center(boxes, x, y, stride, self.center_radius), out=within
        )
        # 1 outside, where the distance to the border is not above 0; no mask, which takes longer.
        outside = within.neg_().sign_().add_(1).clamp_(max=1)
        return cost.add_(outside, alpha=OUTSIDE_COST)

    def class_tables(self) -> list[Tensor]:
        """As PairCosts."""
        return [self.class_cost]

    def with_class_tables(self, tables: list[Tensor]) -> PairCosts:
        """As PairCosts."""
        other = SimOTACosts(
            self.points, self.planes, self.boxes, self.row, self.beyond, self.measure
        )
        (other.class_cost,) = tables
        other.weights, other.center_radius = self.weights, self.center_radius
        return other


def soft_label_match(
    points: Tensor,
    pred_boxes: Tensor,
    logits: Tensor,
    gt_boxes: Tensor,
    gt_labels: Tensor,
    gt_valid: Tensor,
    soft_center_radius: float = 3.0,
    topk: int = 13,
    iou_weight: float = 3.0,
    gt_centers: Tensor | None = None,
    prior_valid: Tensor | None = None,
    measure: PairwiseMeasure | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Dynamic soft label assignment, RTMDet's: SimOTA with soft labels and a soft centre.

    .. math::
        c = \sum_j |q_j - \sigma_j|^2 BCE(\sigma_j, q_j) - w \ln(IoU + 10^{-7}) + 10^{d - r}

    with :math:`\sigma` the sigmoid of a prior's ``logits``, :math:`q` the IoU of its predicted box
    in the label's class and 0 elsewhere, :math:`w` = ``iou_weight``, :math:`d` the distance of
    point and box centre in strides, and :math:`r` = ``soft_center_radius``. Points in no box take
    no part. How many priors a box takes, and who takes one that several want, is as in
    `simota_match`.

    Args:
        points: (P, 4): x, y, stride, stride, px, shared by the images.
        pred_boxes: (B, P, 4) corners, px; half precision is computed in float32.
        logits: (B, P, C).
        gt_boxes: (B, G, 4) corners, px.
        gt_labels: (B, G) int64.
        gt_valid: (B, G) bool, False on padding.
        soft_center_radius: strides.
        topk: overlaps that k is summed over.
        iou_weight: factor.
        gt_centers: (B, G, 2), px, where they are not the boxes' middles.
        prior_valid: (B, P) bool, priors that take part; None is all.
        measure: used in place of the IoU.

    Returns:
        tuple: gt_index (B, P) int64 and overlap (B, P), as `simota_match`.

    References:
        Lyu et al., RTMDet: An Empirical Study of Designing Real-Time Object Detectors, 2022,
        section 3.3, equations 1 to 4.
    """
    points, pred_boxes, logits, gt_boxes = promote_half(points, pred_boxes, logits, gt_boxes)

    def nearness(part: slice, x: Tensor, y: Tensor, stride: Tensor) -> Tensor:
        return inside(gt_boxes[:, part], x, y)

    used = used_priors(points, gt_boxes, gt_valid, prior_valid, nearness)
    if used is None:
        return nothing_matched(pred_boxes)
    index, beyond = used
    label_rows, row = gt_labels.clamp(0, logits.shape[-1] - 1).unique(return_inverse=True)
    chosen = logits[:, index]
    as_no = softplus(chosen).mul_(chosen.sigmoid().square_())
    costs = SoftLabelCosts(
        *geometry_planes(points[index], pred_boxes[:, index]), gt_boxes, row, beyond, measure
    )
    own = chosen[..., label_rows].mT.contiguous()
    rest = as_no.sum(-1, keepdim=True) - as_no[..., label_rows]
    costs.label_tables = [own, softplus(own), own.sigmoid(), rest.mT.contiguous()]
    costs.centers = box_centers(gt_boxes) if gt_centers is None else gt_centers
    costs.radius, costs.iou_weight = soft_center_radius, iou_weight
    return dynamic_k_match(costs, gt_valid, topk, index, len(points))


class SoftLabelCosts(PairCosts):
    """Costs of `soft_label_match`.

    Attributes:
        label_tables: of each label, (B, rows, N): logit, softplus, sigmoid, cost of the others.
        centers: of the boxes, (B, G, 2), px.
        radius: strides.
        iou_weight: factor.
    """

    label_tables: list[Tensor]
    centers: Tensor
    radius: float
    iou_weight: float

    def cost(self, part: slice, overlap: Tensor) -> Tensor:
        """As PairCosts."""
        row = self.row[:, part]
        logit, entropy, sigmoid, rest = (rows_of(table, row) for table in self.label_tables)
        # Of the label: |q - sigmoid|^2 (softplus(x) - q x).
        cost = entropy.sub_(logit.mul_(overlap)).mul_(sigmoid.sub_(overlap).square_()).add_(rest)
        cost.add_(torch.add(overlap, OVERLAP_EPS, out=logit).log_(), alpha=-self.iou_weight)
        (x, y, stride), center = self.points, self.centers[:, part, :, None]
        distance = torch.sub(x, center[:, :, 0], out=logit).square_()
        distance.add_(torch.sub(y, center[:, :, 1], out=sigmoid).square_()).sqrt_().div_(stride)
        return cost.add_(distance.sub_(self.radius).mul_(math.log(10.0)).exp_())

    def class_tables(self) -> list[Tensor]:
        """As PairCosts."""
        return self.label_tables

    def with_class_tables(self, tables: list[Tensor]) -> PairCosts:
        """As PairCosts."""
        other = SoftLabelCosts(
            self.points, self.planes, self.boxes, self.row, self.beyond, self.measure
        )
        other.label_tables, other.centers = tables, self.centers
        other.radius, other.iou_weight = self.radius, self.iou_weight
        return other


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
        summed = top.gather(1, largest(top, k)).T.contiguous().sum(0)
        wanted = summed.int().clamp_(min=1).view(images, -1, 1)
        candidate = largest(cost.neg_().flatten(0, 1), k)
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
    for start, stop in matching.chunks(boxes, images * len(points)):
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


def inside_center(boxes: Tensor, x: Tensor, y: Tensor, stride: Tensor, radius: float) -> Tensor:
    """How far points lie inside the squares of ``radius`` strides about the boxes' centres."""
    center = box_centers(boxes)[..., None]
    reach = radius * stride
    gap: Tensor | None = None
    for axis, place in enumerate((x, y)):
        middle = center[:, :, axis]
        low = (middle - reach).neg_().add_(place)
        high = (middle + reach).sub_(place)
        near = torch.minimum(low, high, out=low)
        gap = near if gap is None else torch.minimum(gap, near, out=gap)
    assert gap is not None
    return gap


def rows_of(table: Tensor, row: Tensor, out: Tensor | None = None) -> Tensor:
    """Rows (B, g) of tables (B, rows, N), (B, g, N), into ``out`` where there is one."""
    images, rows, columns = table.shape
    first = rows * torch.arange(images, device=table.device)[:, None]
    flat = (first + row).flatten()
    into = None if out is None else out.view(-1, columns)
    picked = torch.index_select(table.reshape(-1, columns), 0, flat, out=into)
    return picked.view(images, -1, columns)
