"""Task-aligned assignment: priors by their score and overlap together."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mmdet_ext.functional.assignment.claims import (
    BACKGROUND,
    INSIDE_MARGIN,
    mark_ignored,
    resolve_claims,
)
from mmdet_ext.functional.assignment.dynamic_k import (
    PairwiseMeasure,
    inside,
    measured_pairs,
    rows_of,
)
from mmdet_ext.functional.assignment.prior_blocks import PriorBlocks, pairs_at_a_time
from mmdet_ext.functional.boxes.overlap import box_centers, box_iou
from mmdet_ext.functional.numerics.checks import check_weight
from mmdet_ext.functional.numerics.chunks import largest_places, row_chunks
from mmdet_ext.functional.numerics.precision import promote_half

#: Predicted boxes next to each other that are looked at together.
BLOCK = 32


def task_aligned_match(
    priors: Tensor,
    pred_boxes: Tensor,
    scores: Tensor,
    gt_boxes: Tensor,
    gt_labels: Tensor,
    gt_valid: Tensor,
    topk: int = 13,
    alpha: float = 1.0,
    beta: float = 6.0,
    prior_valid: Tensor | None = None,
    measure: PairwiseMeasure | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Task-aligned learning (TOOD): each box takes the priors of best alignment.

    .. math:: t = s^\alpha u^\beta

    with :math:`s` a prior's ``scores`` of the box's label and :math:`u` the IoU of its predicted
    box with the box. Of the ``topk`` priors of largest t, those above 0 whose centre lies in the
    box are its positives; a prior of several goes to that of the largest IoU.

    Args:
        priors: (P, 4) corners, px, shared by the images; their centres count.
        pred_boxes: (B, P, 4) corners, px; half precision is computed in float32.
        scores: (B, P, C) probabilities.
        gt_boxes: (B, G, 4) corners, px.
        gt_labels: (B, G) int64, in [0, C).
        gt_valid: (B, G) bool, False on padding.
        topk: candidates a box; 1 gives one-to-one assignment.
        alpha: exponent, at least 0 and finite.
        beta: exponent, at least 0 and finite.
        prior_valid: (B, P) bool, priors that take part; None is all.
        measure: used in place of the IoU.

    Returns:
        tuple: gt_index (B, P) int64, BACKGROUND (-1), and IGNORE (-2) where ``prior_valid`` is
        False, beside the index of a box; overlap (B, P) with it and alignment (B, P), 0 where
        there is none.

    Raises:
        ValueError: if an exponent is out of its range.

    References:
        Feng et al., TOOD: Task-aligned One-stage Object Detection, 2021, section 3.2, equation 6.
    """
    check_weight('alpha', alpha)
    check_weight('beta', beta)
    # Only the scores that are looked at are brought to this precision, hence none of them here.
    priors, pred_boxes, _, gt_boxes = promote_half(priors, pred_boxes, scores[:0], gt_boxes)
    images, boxes = gt_valid.shape
    total = len(priors)
    unused = None if prior_valid is None else ~prior_valid
    if boxes == 0 or total == 0:
        nothing = pred_boxes.new_zeros((images, total))
        claimed = torch.full(nothing.shape, BACKGROUND, device=nothing.device)
        return mark_ignored(claimed, unused), nothing, nothing.clone()

    k = min(topk, total)
    # Labels of padding may be anything; those of boxes are within.
    gt_labels = gt_labels.clamp(0, scores.shape[-1] - 1)
    if measure is None and beta == 0:
        measure = _pairwise_iou  # what does not overlap counts too
    if measure is None:
        ranked = _ranked_by_blocks(
            scores, pred_boxes, gt_boxes, gt_labels, prior_valid, k, alpha, beta
        )
    else:
        ranked = _ranked_densely(
            scores, pred_boxes, gt_boxes, gt_labels, prior_valid, k, alpha, beta, measure
        )
    candidate, overlap, alignment = ranked
    x, y = box_centers(priors[candidate]).unbind(-1)
    positive = (alignment > 0) & (inside(gt_boxes, x, y) > INSIDE_MARGIN) & gt_valid[..., None]
    if prior_valid is not None:  # a score of 0 to the power 0 counts
        positive &= prior_valid.gather(1, candidate.flatten(1)).view_as(candidate)
    gt_index, best = resolve_claims(candidate, overlap, positive, total, unused)
    # The alignment with the box that won.
    winner = gt_index.gather(1, candidate.flatten(1)).view_as(candidate)
    won = positive & (winner == torch.arange(boxes, device=winner.device)[:, None])
    metric = overlap.new_zeros((images, total + 1))
    metric.scatter_(1, candidate.where(won, total).flatten(1), alignment.flatten(1))
    return gt_index, best, metric[:, :total]


#: Candidates (B, G, k), their overlaps and their alignments.
Ranked = tuple[Tensor, Tensor, Tensor]


def _ranked_by_blocks(
    scores: Tensor,
    pred_boxes: Tensor,
    gt_boxes: Tensor,
    gt_labels: Tensor,
    prior_valid: Tensor | None,
    k: int,
    alpha: float,
    beta: float,
) -> Ranked:
    """The ``k`` priors of best alignment, from those whose predicted boxes can overlap a box.

    Where fewer are above 0, others stand with an alignment of at most 0.

    Args:
        scores: (B, P, C), of any floating type.
        pred_boxes: (B, P, 4).
        gt_boxes: (B, G, 4).
        gt_labels: (B, G).
        prior_valid: (B, P) or None.
        k: how many.
        alpha: exponent of the score.
        beta: exponent of the overlap, above 0.
    """
    images, boxes = gt_labels.shape
    blocks = PriorBlocks.of(pred_boxes, BLOCK)
    image = torch.arange(images, device=gt_labels.device).repeat_interleave(boxes)
    top = scores.flatten(1).amax(1).to(gt_boxes.dtype).clamp_(min=0).pow_(alpha)
    rows = _Rows(
        boxes=gt_boxes.flatten(0, 1),
        image=image,
        label=gt_labels.flatten(),
        top=top[image],
        blocks=blocks,
        scores=scores.flatten(),
        shape=scores.shape,
        valid=None if prior_valid is None else prior_valid.flatten(),
        alpha=alpha,
        beta=beta,
    )
    # Four times the blocks, as a pair that touches holds many values.
    pieces = row_chunks(len(image), 4 * (blocks.count + k))
    parts = [rows.part(start, stop).ranked(k) for start, stop in pieces]
    found = (torch.cat(tables).view(images, boxes, k) for tables in zip(*parts, strict=True))
    candidate, overlap, alignment = found
    return candidate, overlap, alignment


@dataclass(frozen=True)
class _Rows:
    """Boxes in rows, to be ranked against blocks of predicted boxes.

    Attributes:
        boxes: (R, 4).
        image: (R,), of which image each is.
        label: (R,).
        top: (R,), the best of all scores of its image to the power alpha.
        blocks: of predicted boxes.
        scores: (B * P * C,), of any floating type.
        shape: B, P, C.
        valid: (B * P,), priors that take part; None is all.
        alpha: exponent of the score.
        beta: exponent of the overlap, above 0.
    """

    boxes: Tensor
    image: Tensor
    label: Tensor
    top: Tensor
    blocks: PriorBlocks
    scores: Tensor
    shape: torch.Size
    valid: Tensor | None
    alpha: float
    beta: float

    def part(self, start: int, stop: int) -> _Rows:
        """Some of the rows."""
        return replace(
            self,
            boxes=self.boxes[start:stop],
            image=self.image[start:stop],
            label=self.label[start:stop],
            top=self.top[start:stop],
        )

    def ranked(self, k: int) -> Ranked:
        """The ``k`` priors of best alignment of each row, (R, k) each.

        Overlaps decide nearly alone. So scores are looked up for few priors only: those whose
        overlap suffices, with the best of all scores, for what the k-th best reaches at least.
        """
        pairs = list(self.blocks.touched(self.boxes, self.image))
        if not pairs:
            return self.nothing(k)
        overlap = torch.cat([self.overlap(row, block) for row, block in pairs])
        row, block = (torch.cat(part) for part in zip(*pairs, strict=True))
        peak = overlap.amax(1)
        least = self.least(row, block, overlap, peak, k)
        # Powers are rounded, so that a little less is asked for.
        need = (least / self.top * (1 - 1e-5)).where(least > 0, 0.0)
        chosen = _places(self.power(peak) >= _at(need, row))
        parts = [
            self.reaching(_at(row, part), _at(block, part), _at(overlap, part), need, least)
            for part in chosen.split(pairs_at_a_time(BLOCK))
        ]
        row, prior, overlap, alignment = (torch.cat(part) for part in zip(*parts, strict=True))
        if len(row) == 0:
            return self.nothing(k)
        value, place = _best_of_rows(alignment, row, len(self.boxes), k)
        return _at(prior, place), _at(overlap, place), value

    def nothing(self, k: int) -> Ranked:
        """Where no alignment is above 0."""
        nothing = self.boxes.new_zeros((len(self.boxes), k))
        return nothing.long(), nothing, nothing.clone()

    def least(self, row: Tensor, block: Tensor, overlap: Tensor, peak: Tensor, k: int) -> Tensor:
        """What the k-th best alignment is at least, (R,); 0 where that is not told.

        That is so of the worst of k priors or more, whichever they are: those of largest overlap
        in blocks of large peak.

        Args:
            row: (M,), of pairs of a row and a block.
            block: (M,).
            overlap: (M, BLOCK).
            peak: (M,), the largest of each block.
            k: how many.
        """
        # The k-th largest peak of some groups of blocks bounds that of all blocks from below, and
        # is found in a third of the time.
        groups = 4 * k
        width = -(-self.blocks.count // groups) * groups
        table = peak.new_zeros(len(self.boxes) * width)
        table.scatter_(0, row * width + block, peak)
        bar = table.view(-1, width // groups, groups).amax(1).topk(k).values[:, -1]
        bar = bar.where(bar > 0, torch.inf)
        chosen = _places(peak >= _at(bar, row))
        row = _at(row, chosen)
        best, lane = _at(overlap, chosen).max(1)
        alignment = self.power(best).mul_(self.score(row, _at(block, chosen) * BLOCK + lane))
        least = torch.full_like(bar, torch.inf).scatter_reduce_(0, row, alignment, 'amin')
        # Tiny powers are rounded too coarsely to tell.
        return least.where((least > 1e-30) & (least < torch.inf), 0.0)

    def reaching(
        self, row: Tensor, block: Tensor, overlap: Tensor, need: Tensor, least: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Row, prior, overlap and alignment of what is above 0 and at least the ``least``.

        Args:
            row: (M,), of pairs of a row and a block.
            block: (M,).
            overlap: (M, BLOCK).
            need: (R,), overlap to the power beta without which no score makes up the ``least``.
            least: (R,) alignments.
        """
        power = self.power(overlap)
        place = _places((power >= _at(need, row)[:, None]).view(-1))
        pair = place.div(BLOCK, rounding_mode='floor')
        row, prior = _at(row, pair), _at(block, pair).mul_(BLOCK).add_(place.remainder(BLOCK))
        alignment = _at(power.view(-1), place).mul_(self.score(row, prior))
        kept = _places((alignment >= _at(least, row)) & (alignment > 0))
        place = _at(place, kept)
        return _at(row, kept), _at(prior, kept), _at(overlap.view(-1), place), _at(alignment, kept)

    def overlap(self, row: Tensor, block: Tensor) -> Tensor:
        """Overlaps of rows (M,) with the priors of blocks (M,), (M, BLOCK)."""
        return self.blocks.iou(_at(self.boxes, row), self.blocks.place(_at(self.image, row), block))

    def power(self, overlap: Tensor) -> Tensor:
        """Overlaps to the power beta."""
        return power_of(overlap, self.beta, torch.empty_like(overlap))

    def score(self, row: Tensor, prior: Tensor) -> Tensor:
        """Scores (M,) of priors (M,) for the labels of rows (M,), to the power alpha."""
        _, total, classes = self.shape
        # Where the last block is filled up stands no prior; its overlap is 0, whatever its score.
        place = prior.clamp(max=total - 1).add_(_at(self.image * total, row))
        score = _at(self.scores, place * classes + _at(self.label, row)).to(self.boxes.dtype)
        if self.valid is not None:
            score = score * _at(self.valid, place)
        return score if self.alpha == 1 else score.pow_(self.alpha)


def _at(table: Tensor, place: Tensor) -> Tensor:
    """Entries at places, of any shape where entries are numbers; `index_select` is quickest."""
    picked: Tensor = table.index_select(0, place.flatten())
    return picked.view_as(place) if place.dim() > 1 else picked


def _places(mask: Tensor) -> Tensor:
    """Places (N,) where a mask (M,) is True."""
    return mask.nonzero().squeeze(1)


def _best_of_rows(value: Tensor, row: Tensor, rows: int, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` largest values of each row, of values that stand row by row.

    Args:
        value: (M,), above -1.
        row: (M,), the row of each value, ascending.
        rows: how many.
        k: how many values a row; where there are fewer, -1 stands for what is missing.

    Returns:
        tuple: values (rows, k), the largest first, and their places among the M, (rows, k).
    """
    edge = torch.searchsorted(row, torch.arange(rows + 1, device=row.device))
    first = edge[:-1, None]
    width = max(k, int(edge.diff().max()))
    shift = torch.arange(0, rows * width, width, device=row.device) - edge[:-1]
    table = value.new_full((rows * width,), -1.0)
    place = _at(shift, row).add_(torch.arange(len(value), device=row.device))
    table.scatter_(0, place, value)
    best, column = table.view(rows, width).topk(k)
    return best, (first + column).clamp_(max=len(value) - 1)


def _pairwise_iou(boxes: Tensor, predicted: Tensor) -> Tensor:
    return box_iou(boxes[:, None], predicted)


def _ranked_densely(
    scores: Tensor,
    pred_boxes: Tensor,
    gt_boxes: Tensor,
    gt_labels: Tensor,
    prior_valid: Tensor | None,
    k: int,
    alpha: float,
    beta: float,
    measure: PairwiseMeasure,
) -> Ranked:
    """As `_ranked_by_blocks`, by a measure of all pairs."""
    images, boxes = gt_labels.shape
    label_rows, label_row = gt_labels.unique(return_inverse=True)
    # (rows, B, P), by a transpose of two dimensions, which is many times as fast as one of three.
    columns = scores.flatten(0, 1).index_select(1, label_rows).to(pred_boxes.dtype)
    label_scores = columns.T.contiguous().view(-1, images, pred_boxes.shape[1])
    if prior_valid is not None:
        label_scores = label_scores * prior_valid
    label_scores = label_scores.transpose(0, 1)
    parts = []
    for start, stop in row_chunks(boxes, images * pred_boxes.shape[1]):
        part = slice(start, stop)
        overlap = measured_pairs(measure, gt_boxes[:, part], pred_boxes)
        alignment = power_of(overlap, beta, torch.empty_like(overlap))
        alignment.mul_(rows_of(label_scores, label_row[:, part]).pow_(alpha))
        candidate = largest_places(alignment.flatten(0, 1), k).view(images, -1, k)
        parts.append((candidate, overlap.gather(2, candidate), alignment.gather(2, candidate)))
    candidate, overlap, alignment = (torch.cat(tables, 1) for tables in zip(*parts, strict=True))
    return candidate, overlap, alignment


def power_of(value: Tensor, exponent: float, out: Tensor) -> Tensor:
    """value**exponent, by products for small whole exponents: a power takes ten times as long."""
    if exponent != int(exponent) or not 2 <= exponent <= 8:
        return torch.pow(value, exponent, out=out)
    half = int(exponent) // 2
    power = out.copy_(value) if half == 1 else power_of(value, half, out)
    power.square_()
    return power.mul_(value) if exponent % 2 else power
