"""Class competition in chunks of classes, each computed again in the backward pass, or kept for it.

`mmdet_ext.functional.embedding.competition` states the formulas and calls this module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from mmdet_ext.functional.numerics.directions import unit_vectors

__all__ = ['ChunkedCompetition', 'CompetitionOptions', 'Kind', 'OtherScores']

Kind = Literal['softmax', 'sigmoid']

# Smallest value that the largest component of a centre counts as. Products of gradients with
# 1 / |w| must stay within float32.
_LEAST_PEAK = 1e-32
#: Finite stand-in for the logarithm of a weight of 0.
LOWEST = torch.finfo(torch.float32).min / 2


class OtherScores(Protocol):
    """Rule that rescores the similarities to other classes (CurricularFace, SphereFace-R v2)."""

    def score(self, similarity: Tensor) -> Tensor:
        """Return the scores f(d) of similarities d, (N, c), as a new table."""

    def slope(self, similarity: Tensor) -> Tensor | None:
        """Return the derivative f'(d), (N, c), or None for 1; may overwrite the table d."""


@dataclass(frozen=True)
class CompetitionOptions:
    """Options of a competition; `class_competition` explains them."""

    normalize: bool
    scale: float
    subcenters: int
    kind: Kind
    others: Callable[[Tensor], OtherScores] | None
    chunk: int
    shortest: float
    keep: bool = False
    elsewhere: bool = False


class _Chunk(NamedTuple):
    """Classes from ``start`` to below ``stop``; ``rows`` selects their centres."""

    start: int
    stop: int
    rows: slice


def _chunks(classes: int, options: CompetitionOptions) -> Iterator[_Chunk]:
    """Yield the chunks that cover all classes."""
    for start in range(0, classes, options.chunk):
        stop = min(start + options.chunk, classes)
        yield _Chunk(start, stop, slice(start * options.subcenters, stop * options.subcenters))


class ChunkedCompetition(torch.autograd.Function):
    """Class competition in chunks: the whole table is never held, or once with ``keep``."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        options: CompetitionOptions,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return target, center_norm and others of a `Competition`."""
        work = _Work(x, weight, bias, labels, options)
        if options.keep and any(ctx.needs_input_grad):
            work.kept = x.new_empty(len(x) * len(weight))
        target, nearest, norm = work.own()
        if options.others is not None:
            work.others = options.others(target)
        total = work.sum_of_others()
        ctx.save_for_backward(x, weight, bias, labels, nearest, total, work.kept)
        ctx.options, ctx.inverse, ctx.others = options, work.inverse, work.others
        return target, norm, total

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_target: Tensor, grad_norm: Tensor, grad_total: Tensor
    ) -> tuple[Tensor | None, ...]:
        """Return the gradients of features, centres and biases; labels and options have none."""
        x, weight, bias, labels, nearest, total, kept = ctx.saved_tensors
        with torch.autocast(x.device.type, enabled=False):
            work = _Work(x, weight, bias, labels, ctx.options, ctx.inverse)
            work.others, work.kept, work.filled = ctx.others, kept, kept is not None
            grad_x, grad_weight, grad_bias = work.gradients(
                grad_target, grad_total, total, nearest, ctx.needs_input_grad[:3]
            )
            if grad_weight is not None and not ctx.options.normalize and len(weight):
                if ctx.options.elsewhere:
                    grad_norm = grad_norm.masked_fill(labels < 0, 0)
                _add_norm_gradient(grad_weight, weight, nearest, grad_norm)
        return grad_x, grad_weight, grad_bias, None, None


def _add_norm_gradient(grad: Tensor, weight: Tensor, row: Tensor, grad_norm: Tensor) -> None:
    """Add the gradient of the length of the own centre: d|w| / dw = w / |w|."""
    direction, _ = unit_vectors(weight[row], dtype=weight.dtype)
    grad.index_add_(0, row, direction * grad_norm[:, None])


def _inverse_lengths(weight: Tensor, buffer: Tensor) -> Tensor:
    """Compute 1 / |w| of each row, in blocks of rows that fit the buffer.

    Rows are divided by their largest component first, because squares of very long or very short
    rows leave the range of float32.
    """
    inverse = weight.new_empty(len(weight))
    rows = len(buffer) // weight.shape[1]
    for part, place in zip(weight.split(rows), inverse.split(rows), strict=True):
        peak = torch.maximum(part.amax(1), -part.amin(1)).clamp_(min=_LEAST_PEAK)
        scaled = torch.div(part, peak[:, None], out=buffer[: part.numel()].view(part.shape))
        # A scaled row has a length of at least 1. A zero row gets 1 too: 1 / |w| stays finite.
        length = torch.linalg.vector_norm(scaled, dim=1).clamp_(min=1)
        torch.div(length.reciprocal_(), peak, out=place)
    return inverse


class _Work:
    """Buffers of one forward or backward pass, with the operations on a chunk."""

    def __init__(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        options: CompetitionOptions,
        inverse: Tensor | None = None,
    ) -> None:
        self.x, self.weight, self.bias, self.labels = x, weight, bias, labels
        self.options = options
        self.others: OtherScores | None = None
        # Products with all centres, chunk after chunk; ``filled`` once they were computed.
        self.kept: Tensor | None = None
        self.filled = False
        self.classes = len(weight) // options.subcenters
        # The buffer holds the table of a chunk. Before, it holds blocks of centres: at least one.
        table = len(x) * options.chunk * options.subcenters
        self.buffer = x.new_empty(max(table, weight.shape[1]))
        self.inverse = inverse
        if inverse is None and options.normalize:
            self.inverse = _inverse_lengths(weight, self.buffer)

    def own(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the similarity to the own class, the row of its nearest centre, and its length."""
        count, labels = self.options.subcenters, self.labels
        if not len(self.weight) and self.options.elsewhere:
            nothing = self.x.new_zeros(len(self.x))
            return nothing, torch.zeros_like(labels), nothing.clone()
        if self.options.elsewhere:
            labels = labels.clamp(min=0)
        rows = labels[:, None] * count + torch.arange(count, device=labels.device)
        dots = torch.stack([(self.weight[row] * self.x).sum(1) for row in rows.unbind(1)], 1)
        if self.inverse is not None:
            dots *= self.inverse[rows]
        target, place = dots.max(1)
        nearest = rows.gather(1, place[:, None]).squeeze(1)
        norm = torch.ones_like(target)
        if self.inverse is None:
            norm = unit_vectors(self.weight[nearest], dtype=self.weight.dtype)[1]
        if self.options.elsewhere:
            target, norm = (each.masked_fill(self.labels < 0, 0) for each in (target, norm))
        return target, nearest, norm

    def sum_of_others(self) -> Tensor:
        """Return the log-sum-exp, or the sum of softplus, over all classes but the own, (N,)."""
        size = len(self.x)
        highest = self.x.new_full((size, 1), LOWEST)
        total = self.x.new_zeros(size, 1)
        for chunk in _chunks(self.classes, self.options):
            scores = self.scores(self.similarity(chunk)[0], chunk)
            self.put(scores, chunk, torch.full_like(highest, -torch.inf))
            if self.options.kind == 'sigmoid':
                total += F.softplus(scores).sum(1, keepdim=True)
                continue
            before, highest = highest, torch.maximum(highest, scores.amax(1, keepdim=True))
            total *= (before - highest).exp_()
            total += scores.sub_(highest).exp_().sum(1, keepdim=True)
        if self.options.kind == 'sigmoid':
            return total.squeeze(1)
        return (highest + total.log_()).clamp_(min=LOWEST).squeeze(1)

    def similarity(self, chunk: _Chunk) -> tuple[Tensor, Tensor | None]:
        """Compute the similarities to the classes of a chunk, in the buffer.

        Returns:
            tuple: similarities (N, c), and the index of the sub-centre that gave each, None for
            one centre per class.
        """
        rows = (chunk.stop - chunk.start) * self.options.subcenters
        table = self.buffer[: len(self.x) * rows].view(len(self.x), rows)
        kept = self.kept_products(chunk)
        dots = table if kept is None else kept
        if not self.filled:
            torch.mm(self.x, self.weight[chunk.rows].t(), out=dots)
        if self.inverse is not None:
            torch.mul(dots, self.inverse[chunk.rows], out=table)
        elif kept is not None:
            table.copy_(dots)
        if self.options.subcenters == 1:
            return table, None
        classes = chunk.stop - chunk.start
        best = table.view(len(self.x), classes, self.options.subcenters).max(2)
        return best.values, best.indices

    def kept_products(self, chunk: _Chunk) -> Tensor | None:
        """Return the place of a chunk's products with all centres, (N, rows); None if not kept."""
        if self.kept is None:
            return None
        size = len(self.x)
        return self.kept[size * chunk.rows.start : size * chunk.rows.stop].view(size, -1)

    def scores(self, similarity: Tensor, chunk: _Chunk) -> Tensor:
        """Return the scores of similarities; may overwrite the similarities."""
        if self.others is not None:
            similarity = self.others.score(similarity)
        scores = similarity.mul_(self.options.scale) if self.options.scale != 1 else similarity
        return scores if self.bias is None else scores.add_(self.bias[chunk.start : chunk.stop])

    def put(self, table: Tensor, chunk: _Chunk, values: Tensor) -> None:
        """Write ``values`` (N, 1) into the column of the own class, where the chunk has it."""
        column = self.labels[:, None] - chunk.start
        width = chunk.stop - chunk.start
        # A row without such a column writes its own entry back. Selecting rows instead would wait
        # for the GPU.
        inside = (column >= 0) & (column < width)
        column = column.clamp(0, width - 1)
        table.scatter_(1, column, torch.where(inside, values, table.gather(1, column)))

    def gradients(
        self,
        grad_target: Tensor,
        grad_total: Tensor,
        total: Tensor,
        nearest: Tensor,
        wanted: tuple[bool, bool, bool],
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Return the gradients of features, centres and biases, None for those not ``wanted``."""
        options = self.options
        grad_x = torch.zeros_like(self.x) if wanted[0] else None
        grad_weight = torch.empty_like(self.weight) if wanted[1] else None
        grad_bias = torch.empty_like(self.bias) if self.bias is not None and wanted[2] else None
        own = grad_target[:, None]
        for chunk in _chunks(self.classes, options):
            similarity, place = self.similarity(chunk)
            table = self.scores(similarity, chunk)
            if options.kind == 'sigmoid':
                table.sigmoid_()
            else:
                table.sub_(total[:, None]).exp_()
            table *= grad_total[:, None]
            if grad_bias is not None:
                self.put(table, chunk, torch.zeros_like(own))
                torch.sum(table, 0, out=grad_bias[chunk.start : chunk.stop])
            if options.scale != 1:
                table *= options.scale
            slope = None if self.others is None else self.others.slope(similarity)
            if slope is not None:
                table *= slope
            self.put(table, chunk, own)
            if place is not None:
                table = self.spread(table, place, chunk, nearest)
            self.add_products(table, chunk, grad_x, grad_weight)
        return grad_x, grad_weight, grad_bias

    def spread(self, table: Tensor, place: Tensor, chunk: _Chunk, nearest: Tensor) -> Tensor:
        """Give the gradient of each class to the sub-centre that gave its similarity."""
        # Rounding may make two sub-centres equal: for the own class, take the choice of `own`.
        self.put(place, chunk, (nearest % self.options.subcenters)[:, None])
        shape = (*table.shape, self.options.subcenters)
        wide = self.buffer[: table.numel() * shape[2]].view(shape).zero_()
        return wide.scatter_(2, place[..., None], table[..., None]).flatten(1)

    def add_products(
        self, table: Tensor, chunk: _Chunk, grad_x: Tensor | None, grad_weight: Tensor | None
    ) -> None:
        """Add the gradient of a chunk to that of the features, and write that of its centres."""
        centers = self.weight[chunk.rows]
        inverse = None if self.inverse is None else self.inverse[chunk.rows]
        own = None if grad_weight is None else grad_weight[chunk.rows]
        along = None
        if own is not None:
            torch.mm(table.t(), self.x, out=own)
            if inverse is not None:
                # (sum_i g_ij x_i) w_j, where kept products sum_i g_ij (x_i w_j) have fewer numbers.
                dots = self.kept_products(chunk)
                along = torch.linalg.vecdot(own, centers) if dots is None else (table * dots).sum(0)
        if grad_x is not None:
            grad_x.addmm_(table if inverse is None else table.mul_(inverse), centers)
        if own is None or inverse is None or along is None:
            return
        # d(w / |w|): the part along the centre does not change its direction.
        along.mul_(inverse).mul_(inverse)
        # Features of length 1e30 and centres of 1e-30 would make this infinite.
        most = torch.finfo(along.dtype).max
        along.clamp_(-most, most)
        own.addcmul_(centers, along[:, None], value=-1)
        own *= inverse.clamp(max=1 / self.options.shortest)[:, None]
