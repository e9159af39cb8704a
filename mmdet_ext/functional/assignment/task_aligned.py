"""Task-aligned assignment, of TOOD.

1. The alignment of a prior with a box is its score for the box's label to the power alpha, times
   the overlap of its predicted box with the box to the power beta.
2. The priors of largest alignment are the box's candidates.
3. Candidates of alignment above 0 whose centre lies in the box are its positives.
4. A prior that several boxes claim goes to the box of largest overlap.

Step 2 does not compute all alignments. With the usual exponents, the overlap decides nearly alone,
so that a lower bound of the k-th largest alignment of a box, found from few priors, rules out most
of the others by their overlap, before their scores are looked up.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mmdet_ext.functional.assignment.assignment import Assignment, assign_nothing
from mmdet_ext.functional.assignment.claims import INSIDE_MARGIN, border_distance, resolve_claims
from mmdet_ext.functional.assignment.dynamic_k import (
    PairwiseMeasure,
    label_rows,
    measured_pairs,
    rows_of,
)
from mmdet_ext.functional.assignment.geometry import BatchGeometry, Predictions
from mmdet_ext.functional.assignment.prior_blocks import PriorBlocks, pairs_at_a_time
from mmdet_ext.functional.boxes.overlap import box_iou
from mmdet_ext.functional.numerics.checks import check_number
from mmdet_ext.functional.numerics.chunks import largest_places, row_chunks
from mmdet_ext.functional.numerics.precision import promote_half

__all__ = ['power_of', 'task_aligned_match']

#: Number of consecutive predicted boxes in a block.
BLOCK = 32


def task_aligned_match(
    geometry: BatchGeometry,
    predictions: Predictions,
    topk: int = 13,
    alpha: float = 1.0,
    beta: float = 6.0,
    measure: PairwiseMeasure | None = None,
) -> Assignment:
    r"""Assign priors by task-aligned learning: each box takes the priors of best alignment.

    .. math:: t = s^\alpha u^\beta

    with :math:`s` a prior's score for the box's label and :math:`u` the IoU of its predicted box
    with the box. Of the ``topk`` priors of largest t, those above 0 whose centre lies in the box
    are its positives. A prior of several boxes goes to that of the largest IoU.

    Args:
        geometry: priors, whose centres count; half precision is computed in float32.
        predictions: boxes and class scores, as probabilities.
        topk: candidates per box; 1 gives one-to-one assignment.
        alpha: exponent of the score, at least 0 and finite.
        beta: exponent of the overlap, at least 0 and finite.
        measure: used in place of the IoU.

    Returns:
        Assignment: ``overlap`` is that of the predicted box, ``metric`` the alignment.

    Raises:
        ValueError: if an exponent is out of its range.

    References:
        Feng et al., TOOD: Task-aligned One-stage Object Detection, 2021, section 3.2, equation 6.
    """
    check_number('alpha', alpha, least=0, finite=True)
    check_number('beta', beta, least=0, finite=True)
    scores = predictions.as_probabilities()
    # Scores keep their precision: only the few that are looked up are converted.
    pred_boxes, gt_boxes, *_ = promote_half(
        predictions.as_boxes(), geometry.gt_boxes, scores[:0], geometry.priors.rows[:0]
    )
    images, boxes, total = geometry.shape
    if boxes == 0 or total == 0:
        nothing = assign_nothing(geometry, pred_boxes)
        return replace(nothing, metric=torch.zeros_like(nothing.overlap))

    # 1. and 2. The candidates, by alignment.
    if measure is None and beta == 0:
        measure = _pairwise_iou  # priors without overlap count too
    labels = geometry.gt_labels.clamp(0, scores.shape[-1] - 1)  # padding may hold any label
    ranking = _Ranking(
        min(topk, total), alpha, beta, scores, pred_boxes, gt_boxes, labels, geometry.prior_valid
    )
    candidate, overlap, alignment = (
        _rank_by_blocks(ranking) if measure is None else _rank_all(ranking, measure)
    )

    # 3. Positives.
    x, y = geometry.priors.centers_of(candidate).unbind(-1)
    positive = (alignment > 0) & (border_distance(gt_boxes, x, y) > INSIDE_MARGIN)
    positive &= geometry.gt_valid[..., None]
    if geometry.prior_valid is not None:  # with alpha 0, absent priors have an alignment above 0
        positive &= geometry.prior_valid.gather(1, candidate.flatten(1)).view_as(candidate)

    # 4. One box per prior.
    unused = geometry.unused_priors()
    gt_index, best = resolve_claims(candidate, overlap, positive, total, unused)
    winner = gt_index.gather(1, candidate.flatten(1)).view_as(candidate)
    won = positive & (winner == torch.arange(boxes, device=winner.device)[:, None])
    metric = overlap.new_zeros((images, total + 1))
    metric.scatter_(1, candidate.where(won, total).flatten(1), alignment.flatten(1))
    return Assignment(gt_index, best, metric[:, :total])


@dataclass(frozen=True)
class _Ranking:
    """The search for the best candidates of each box.

    Attributes:
        k: candidates per box.
        alpha: exponent of the score.
        beta: exponent of the overlap.
        scores: (B, P, C), of any floating dtype.
        pred_boxes: (B, P, 4).
        gt_boxes: (B, G, 4).
        gt_labels: (B, G).
        prior_valid: (B, P), None for all.
    """

    k: int
    alpha: float
    beta: float
    scores: Tensor
    pred_boxes: Tensor
    gt_boxes: Tensor
    gt_labels: Tensor
    prior_valid: Tensor | None


#: Candidates, their overlaps and their alignments, (B, G, k) or (R, k) each.
_Ranked = tuple[Tensor, Tensor, Tensor]


def _rank_by_blocks(ranking: _Ranking) -> _Ranked:
    """Rank the priors whose predicted boxes can overlap a box; ``beta`` must be above 0.

    A box with fewer than k alignments above 0 gets other candidates too, with an alignment of at
    most 0.
    """
    scores, valid = ranking.scores, ranking.prior_valid
    images, boxes = ranking.gt_labels.shape
    blocks = PriorBlocks.of(ranking.pred_boxes, BLOCK)
    image = torch.arange(images, device=scores.device).repeat_interleave(boxes)
    top = scores.flatten(1).amax(1).to(ranking.gt_boxes.dtype).clamp_(min=0).pow_(ranking.alpha)
    rows = _Rows(
        rule=ranking,
        boxes=ranking.gt_boxes.flatten(0, 1),
        image=image,
        label=ranking.gt_labels.flatten(),
        top=top[image],
        blocks=blocks,
        scores=scores.flatten(),
        valid=None if valid is None else valid.flatten(),
    )
    # The factor 4 is for the several tables of a touching pair.
    pieces = row_chunks(len(image), 4 * (blocks.count + ranking.k))
    parts = [rows.part(start, stop).ranked() for start, stop in pieces]
    found = (torch.cat(tables).view(images, boxes, -1) for tables in zip(*parts, strict=True))
    candidate, overlap, alignment = found
    return candidate, overlap, alignment


@dataclass(frozen=True)
class _Rows:
    """R boxes of all images in rows, to be ranked against blocks of predicted boxes.

    A pair is a box and a block that can overlap; there are M of them.

    Attributes:
        rule: options, and the shape of the scores.
        boxes: (R, 4).
        image: (R,) image of each box.
        label: (R,).
        top: (R,) largest score of the box's image, of all priors and classes, to the power alpha.
        blocks: the predicted boxes.
        scores: (B * P * C,), of any floating dtype.
        valid: (B * P,) priors that take part; None for all.
    """

    rule: _Ranking
    boxes: Tensor
    image: Tensor
    label: Tensor
    top: Tensor
    blocks: PriorBlocks
    scores: Tensor
    valid: Tensor | None

    def part(self, start: int, stop: int) -> _Rows:
        """Return the rows from ``start`` to before ``stop``."""
        return replace(
            self,
            boxes=self.boxes[start:stop],
            image=self.image[start:stop],
            label=self.label[start:stop],
            top=self.top[start:stop],
        )

    def ranked(self) -> _Ranked:
        """Find the k priors of best alignment for each row, (R, k) each."""
        pairs = list(self.blocks.touched(self.boxes, self.image))
        if not pairs:
            return self._nothing()
        overlap = torch.cat([self._overlap(row, block) for row, block in pairs])
        row, block = (torch.cat(part) for part in zip(*pairs, strict=True))
        peak = overlap.amax(1)
        least = self._least_alignment(row, block, overlap, peak)
        # A prior whose overlap is smaller than this misses ``least`` even with the largest score.
        # Powers are rounded, hence a little less.
        need = (least / self.top * (1 - 1e-5)).where(least > 0, 0.0)
        chosen = _places(self._power(peak) >= _at(need, row))
        parts = [
            self._aligned_at_least(
                _at(row, part), _at(block, part), _at(overlap, part), need, least
            )
            for part in chosen.split(pairs_at_a_time(BLOCK))
        ]
        row, prior, overlap, alignment = (torch.cat(part) for part in zip(*parts, strict=True))
        if len(row) == 0:
            return self._nothing()
        value, place = _best_of_rows(alignment, row, len(self.boxes), self.rule.k)
        return _at(prior, place), _at(overlap, place), value

    def _nothing(self) -> _Ranked:
        """Return candidates of alignment 0, where no alignment is above 0."""
        nothing = self.boxes.new_zeros((len(self.boxes), self.rule.k))
        return nothing.long(), nothing, nothing.clone()

    def _least_alignment(self, row: Tensor, block: Tensor, overlap: Tensor, peak: Tensor) -> Tensor:
        """Bound the k-th largest alignment of each row from below.

        The smallest alignment of any k priors or more is such a bound. These here are the priors
        of largest overlap in the blocks with the largest peaks.

        Args:
            row: (M,) row of each pair.
            block: (M,) block of each pair.
            overlap: (M, BLOCK).
            peak: (M,) largest overlap of each pair.

        Returns:
            Tensor: (R,); 0 where there is no bound.
        """
        # The k-th largest maximum over groups of blocks is at most the k-th largest peak, and is
        # found in a third of the time.
        k = self.rule.k
        groups = 4 * k
        width = -(-self.blocks.count // groups) * groups
        table = peak.new_zeros(len(self.boxes) * width)
        table.scatter_(0, row * width + block, peak)
        bar = table.view(-1, width // groups, groups).amax(1).topk(k).values[:, -1]
        bar = bar.where(bar > 0, torch.inf)
        chosen = _places(peak >= _at(bar, row))
        row = _at(row, chosen)
        best, lane = _at(overlap, chosen).max(1)
        alignment = self._power(best).mul_(self._score(row, _at(block, chosen) * BLOCK + lane))
        least = torch.full_like(bar, torch.inf).scatter_reduce_(0, row, alignment, 'amin')
        # Smaller powers are rounded too coarsely to compare.
        return least.where((least > 1e-30) & (least < torch.inf), 0.0)

    def _aligned_at_least(
        self, row: Tensor, block: Tensor, overlap: Tensor, need: Tensor, least: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Find the priors of alignment above 0 and at least ``least``.

        Args:
            row: (M,) row of each pair.
            block: (M,) block of each pair.
            overlap: (M, BLOCK).
            need: (R,) smallest power of an overlap that can reach ``least``.
            least: (R,) alignments.

        Returns:
            tuple: row, prior, overlap and alignment, (N,) each.
        """
        power = self._power(overlap)
        place = _places((power >= _at(need, row)[:, None]).view(-1))
        pair = place.div(BLOCK, rounding_mode='floor')
        row, prior = _at(row, pair), _at(block, pair).mul_(BLOCK).add_(place.remainder(BLOCK))
        alignment = _at(power.view(-1), place).mul_(self._score(row, prior))
        kept = _places((alignment >= _at(least, row)) & (alignment > 0))
        place = _at(place, kept)
        return _at(row, kept), _at(prior, kept), _at(overlap.view(-1), place), _at(alignment, kept)

    def _overlap(self, row: Tensor, block: Tensor) -> Tensor:
        """Compute the overlaps (M, BLOCK) of rows (M,) with the priors of blocks (M,)."""
        return self.blocks.iou(_at(self.boxes, row), self.blocks.place(_at(self.image, row), block))

    def _power(self, overlap: Tensor) -> Tensor:
        """Raise overlaps to the power beta."""
        return power_of(overlap, self.rule.beta, torch.empty_like(overlap))

    def _score(self, row: Tensor, prior: Tensor) -> Tensor:
        """Look up the scores (M,) of priors for the labels of their rows, to the power alpha."""
        _, total, classes = self.rule.scores.shape
        # The last block may be filled up past the last prior; the overlap is 0 there.
        place = prior.clamp(max=total - 1).add_(_at(self.image * total, row))
        score = _at(self.scores, place * classes + _at(self.label, row)).to(self.boxes.dtype)
        if self.valid is not None:
            score = score * _at(self.valid, place)
        return score if self.rule.alpha == 1 else score.pow_(self.rule.alpha)


def _at(table: Tensor, place: Tensor) -> Tensor:
    """Pick entries of a table at places (N,), or of a vector at places of any shape."""
    picked: Tensor = table.index_select(0, place.flatten())  # the fastest of the ways to index
    return picked.view_as(place) if place.dim() > 1 else picked


def _places(mask: Tensor) -> Tensor:
    """Return the places (N,) where a mask (M,) is True."""
    return mask.nonzero().squeeze(1)


def _best_of_rows(value: Tensor, row: Tensor, rows: int, k: int) -> tuple[Tensor, Tensor]:
    """Find the ``k`` largest values of each row, of values that are listed row by row.

    Args:
        value: (M,), above -1.
        row: (M,) row of each value, ascending.
        rows: number of rows.
        k: values per row; -1 stands for values that are missing.

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


def _rank_all(ranking: _Ranking, measure: PairwiseMeasure) -> _Ranked:
    """Rank all priors by a measure of all pairs."""
    images, boxes = ranking.gt_labels.shape
    pred_boxes, k = ranking.pred_boxes, ranking.k
    labels, label_row = label_rows(ranking.gt_labels, ranking.scores.shape[-1])
    # (rows, B, P), by a transpose of two dimensions, which is much faster than one of three.
    columns = ranking.scores.flatten(0, 1).index_select(1, labels).to(pred_boxes.dtype)
    label_scores = columns.T.contiguous().view(-1, images, pred_boxes.shape[1])
    if ranking.prior_valid is not None:
        label_scores = label_scores * ranking.prior_valid
    label_scores = label_scores.transpose(0, 1)
    parts = []
    for start, stop in row_chunks(boxes, images * pred_boxes.shape[1]):
        part = slice(start, stop)
        overlap = measured_pairs(measure, ranking.gt_boxes[:, part], pred_boxes)
        alignment = power_of(overlap, ranking.beta, torch.empty_like(overlap))
        alignment.mul_(rows_of(label_scores, label_row[:, part]).pow_(ranking.alpha))
        candidate = largest_places(alignment.flatten(0, 1), k).view(images, -1, k)
        parts.append((candidate, overlap.gather(2, candidate), alignment.gather(2, candidate)))
    candidate, overlap, alignment = (torch.cat(tables, 1) for tables in zip(*parts, strict=True))
    return candidate, overlap, alignment


def power_of(value: Tensor, exponent: float, out: Tensor) -> Tensor:
    """Compute value**exponent by products for small whole exponents, ten times as fast as `pow`.

    Args:
        value: of any shape.
        exponent: at least 0.
        out: of the shape of ``value``; overwritten.
    """
    if exponent != int(exponent) or not 2 <= exponent <= 8:
        return torch.pow(value, exponent, out=out)
    half = int(exponent) // 2
    power = out.copy_(value) if half == 1 else power_of(value, half, out)
    power.square_()
    return power.mul_(value) if exponent % 2 else power
