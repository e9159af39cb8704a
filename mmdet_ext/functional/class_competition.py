"""What a sample's class has to beat: scores of all classes, without ever holding them all.

A classifier over ``C`` identities compares N features with ``C`` centres. Only two numbers a sample
matter to its loss: the similarity to its own centre, and the sum over all others::

    d_ij   = max_k <x_i, v_jk>            v is w, or w / |w|; k over the sub-centres of class j
    z_ij   = scale f(d_ij) + bias_j       f is the identity, or what `OtherScores` says
    target = d_iy                         y is the sample's label
    others = log sum_{j != y} exp(z_ij)   kind 'softmax'
             sum_{j != y} log(1 + exp(z_ij))   kind 'sigmoid'

Margins act on `target` alone, N numbers, in plain autograd (`mmdet_ext.functional.margins`).
There are two equal ways to these numbers. The plain one holds the N x C table and what autograd
keeps of it; the exact one goes through the classes in chunks that stay in the cache, carries the
logarithm of the sum, and computes each chunk again in the backward pass: four matrix products
instead of three, and memory that does not grow with C.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from mmdet_ext.functional.checks import check_one_of

Kind = Literal['softmax', 'sigmoid']
Path = Literal['plain', 'exact']

# Elements of one chunk of the table. On a CPU it shares a second-level cache with its centres; a
# GPU wants large products.
_CHUNK_ELEMENTS = {'cpu': 2**18}
_CHUNK_ELEMENTS_ELSEWHERE = 2**25
# A feature or centre shorter than this has the gradient of one of this length.
_SHORTEST = 1e-4
# Shorter than this a centre has no direction.
_NO_LENGTH = 1e-12
_LOWEST = torch.finfo(torch.float32).min / 2


class OtherScores(Protocol):
    """What becomes of a batch's similarity to other classes (CurricularFace, SphereFace-R v2)."""

    def score(self, similarity: Tensor) -> Tensor:
        """The score f(d) of similarities (N, c), as a new table."""

    def slope(self, similarity: Tensor) -> Tensor | None:
        """The derivative f'(d) of a table (N, c) that may be overwritten, None for 1."""


class Competition(NamedTuple):
    """The numbers of a batch, all float32, all differentiable.

    Attributes:
        target: similarity to the own centre, (N,).
        centre_norm: length of the own centre, (N,); ones where centres are normalised.
        others: what all other classes weigh together, (N,).
    """

    target: Tensor
    centre_norm: Tensor
    others: Tensor


@dataclass(frozen=True)
class _Options:
    normalize: bool
    scale: float
    subcenters: int
    kind: Kind
    others: Callable[[Tensor], OtherScores] | None
    chunk: int


class _Unit(torch.autograd.Function):
    """x / |x| along the last dimension, and |x|; a gradient that no short vector makes large."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        # Divided by the largest component first: squares of 1e-30 and of 1e30 leave float32.
        peak = x.abs().amax(1, keepdim=True) if x.shape[1] else x.new_ones(len(x), 1)
        peak = torch.where(peak > 0, peak, 1)
        length = torch.linalg.vector_norm(x / peak, dim=1, keepdim=True)
        unit = torch.where(length > 0, x / peak / length, 0)
        norm = (length * peak).squeeze(1)
        ctx.save_for_backward(unit, norm)
        return unit, norm

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_unit: Tensor, grad_norm: Tensor) -> Tensor:
        unit, norm = ctx.saved_tensors
        across = grad_unit - (grad_unit * unit).sum(1, keepdim=True) * unit
        result: Tensor = across / norm[:, None].clamp(min=_SHORTEST) + grad_norm[:, None] * unit
        return result


def unit_vectors(x: Tensor) -> tuple[Tensor, Tensor]:
    """Directions and lengths of vectors: u = x / |x|, and |x|.

    Args:
        x: vectors, (N, D), any float type; computed in float32.

    Returns:
        u (N, D) and |x| (N,), float32. A zero vector has the direction 0 and the length 0.
        Vectors shorter than 1e-4 get the gradient of one of that length: large, never infinite.

    >>> unit_vectors(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    (tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]]), tensor([5., 0.]))
    """
    unit, norm = _Unit.apply(x.float())  # type: ignore[no-untyped-call]
    return unit, norm


def class_competition(
    features: Tensor,
    weight: Tensor,
    labels: Tensor,
    *,
    normalize_weight: bool = True,
    scale: float = 1.0,
    class_bias: Tensor | None = None,
    num_subcenters: int = 1,
    kind: Kind = 'softmax',
    others: Callable[[Tensor], OtherScores] | None = None,
    path: Path = 'exact',
    chunk: int | None = None,
) -> Competition:
    """Similarity to the own class, and the weight of all others together (formulas above).

    Args:
        features: (N, D), normalised already where the loss wants cosines.
        weight: centres, (C * num_subcenters, D); those of a class lie together.
        labels: class of each sample, (N,), int64, from 0 to C - 1.
        normalize_weight: whether similarity is to w / |w|.
        scale: factor on the other classes' scores. ``target`` is not scaled.
        class_bias: added to the scores of the other classes, (C,).
        num_subcenters: centres a class; the nearest counts.
        kind: whether classes compete in one softmax, or each against a threshold.
        others: makes, of the similarities to the own classes (N,), what rescores the other
            classes' similarities; None to leave them.
        path: 'plain' holds the table, 'exact' never does. Equal to 1e-5.
        chunk: classes at a time on the exact path; by default what fits the cache.

    Returns:
        Competition: see there.

    Raises:
        ValueError: for shapes that do not fit, a number of centres that is no multiple of
            ``num_subcenters``, another kind or path; on a CPU also for labels out of range.
    """
    check_one_of('kind', kind, Kind)
    check_one_of('path', path, Path)
    _check_shapes(features, weight, labels, class_bias, num_subcenters)
    classes = len(weight) // num_subcenters
    if chunk is not None and chunk < 1:
        raise ValueError(f'chunk must be at least 1, got {chunk}')
    if chunk is None:
        elements = _CHUNK_ELEMENTS.get(features.device.type, _CHUNK_ELEMENTS_ELSEWHERE)
        chunk = max(elements // max(len(features) * num_subcenters, 1), 64)
    options = _Options(
        normalize_weight, float(scale), num_subcenters, kind, others, min(chunk, max(classes, 1))
    )
    with torch.autocast(features.device.type, enabled=False):
        features, weight = features.float(), weight.float()
        bias = None if class_bias is None else class_bias.float()
        if path == 'plain':
            return _plain(features, weight, labels, bias, options)
        numbers = _Exact.apply(features, weight, bias, labels, options)  # type: ignore[no-untyped-call]
        return Competition(*numbers)


def _check_shapes(
    features: Tensor, weight: Tensor, labels: Tensor, bias: Tensor | None, subcenters: int
) -> None:
    if features.dim() != 2 or weight.dim() != 2 or features.shape[1] != weight.shape[1]:
        raise ValueError(
            'features must be (N, D) and weight (classes, D) with one D, got '
            f'{tuple(features.shape)} and {tuple(weight.shape)}'
        )
    if subcenters < 1 or len(weight) % subcenters:
        raise ValueError(
            f'num_subcenters is {subcenters}: it must be at least 1 and divide the '
            f'{len(weight)} rows of weight'
        )
    classes = len(weight) // subcenters
    if labels.shape != features.shape[:1] or labels.is_floating_point():
        raise ValueError(
            f'labels must be integers, one a feature: ({len(features)},), got '
            f'{tuple(labels.shape)} of {labels.dtype}'
        )
    if bias is not None and bias.shape != (classes,):
        raise ValueError(f'class_bias must be ({classes},), got {tuple(bias.shape)}')
    # A look at a GPU's labels would wait for it; there the gather fails by itself.
    if labels.device.type == 'cpu' and len(labels) and not torch.compiler.is_compiling():
        low, high = (int(value) for value in labels.aminmax())
        if low < 0 or high >= classes:
            raise ValueError(
                f'labels must be from 0 to {classes - 1} for {classes} classes, got values from '
                f'{low} to {high}: compare num_classes with the data set'
            )


def _plain(
    x: Tensor, weight: Tensor, labels: Tensor, bias: Tensor | None, options: _Options
) -> Competition:
    """The reference: the whole table, and autograd."""
    centres = unit_vectors(weight)[0] if options.normalize else weight
    classes = len(weight) // options.subcenters
    best = F.linear(x, centres).view(len(x), classes, options.subcenters).max(2)
    similarity, column = best.values, labels[:, None]
    norm = x.new_ones(len(x))
    if not options.normalize:
        nearest = labels * options.subcenters + best.indices.gather(1, column).squeeze(1)
        norm = unit_vectors(weight[nearest])[1]
    target = similarity.gather(1, column).squeeze(1)
    if options.others is not None:
        rescore = options.others(target.detach())
        similarity = _Rescored.apply(similarity, rescore)  # type: ignore[no-untyped-call]
    scores = options.scale * similarity
    if bias is not None:
        scores = scores + bias
    if options.kind == 'sigmoid':
        own_mask = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, column, True)
        return Competition(target, norm, F.softplus(scores).masked_fill(own_mask, 0).sum(1))
    lowest = torch.full_like(target, -torch.inf)[:, None]
    rest = scores.scatter(1, column, lowest)
    # With one class there are no others: their weight is 0, its logarithm is finite here.
    return Competition(target, norm, rest.logsumexp(1).clamp(min=_LOWEST))


class _Rescored(torch.autograd.Function):
    """`OtherScores` for autograd."""

    @staticmethod
    def forward(ctx: Any, similarity: Tensor, others: OtherScores) -> Tensor:
        ctx.others = others
        ctx.save_for_backward(similarity)
        return others.score(similarity)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        slope = ctx.others.slope(ctx.saved_tensors[0].clone())
        return (grad if slope is None else grad * slope), None


class _Chunk(NamedTuple):
    """Classes ``start`` to ``stop``; ``rows`` are their centres."""

    start: int
    stop: int
    rows: slice


def _chunks(classes: int, options: _Options) -> Iterator[_Chunk]:
    for start in range(0, classes, options.chunk):
        stop = min(start + options.chunk, classes)
        yield _Chunk(
            start, stop, slice(start * options.subcenters, stop * options.subcenters)
        )


class _Exact(torch.autograd.Function):
    """The same numbers by chunks of classes, computed again in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        options: _Options,
    ) -> tuple[Tensor, Tensor, Tensor]:
        work = _Work(x, weight, bias, labels, options)
        target, nearest, norm = work.own()
        if options.others is not None:
            work.others = options.others(target)
        total = work.sum_of_others()
        ctx.save_for_backward(x, weight, bias, labels, nearest, total)
        ctx.options, ctx.inverse, ctx.others = options, work.inverse, work.others
        return target, norm, total

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_target: Tensor, grad_norm: Tensor, grad_total: Tensor
    ) -> tuple[Tensor | None, ...]:
        x, weight, bias, labels, nearest, total = ctx.saved_tensors
        with torch.autocast(x.device.type, enabled=False):
            work = _Work(x, weight, bias, labels, ctx.options, ctx.inverse)
            work.others = ctx.others
            grad_x, grad_weight, grad_bias = work.gradients(
                grad_target, grad_total, total, nearest, ctx.needs_input_grad[:3]
            )
            if grad_weight is not None and not ctx.options.normalize:
                _add_norm_gradient(grad_weight, weight, nearest, grad_norm)
        return grad_x, grad_weight, grad_bias, None, None


def _add_norm_gradient(grad: Tensor, weight: Tensor, row: Tensor, grad_norm: Tensor) -> None:
    """Add the gradient of the own centre's length: d|w| / dw = w / |w|."""
    direction, _ = unit_vectors(weight[row])
    grad.index_add_(0, row, direction * grad_norm[:, None])


class _Work:
    """Buffers of one pass, and what is done to a chunk in them."""

    def __init__(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        options: _Options,
        inverse: Tensor | None = None,
    ) -> None:
        self.x, self.weight, self.bias, self.labels = x, weight, bias, labels
        self.options = options
        self.others: OtherScores | None = None
        self.classes = len(weight) // options.subcenters
        self.buffer = x.new_empty(len(x) * options.chunk * options.subcenters)
        self.inverse = inverse
        if inverse is None and options.normalize:
            self.inverse = x.new_empty(len(weight))
            for chunk in _chunks(self.classes, options):
                length = torch.linalg.vector_norm(weight[chunk.rows], dim=1)
                torch.reciprocal(length.clamp_(min=_NO_LENGTH), out=self.inverse[chunk.rows])

    def own(self) -> tuple[Tensor, Tensor, Tensor]:
        """Similarity to the own class, the row of the centre that gives it, and its length."""
        count = self.options.subcenters
        rows = self.labels[:, None] * count + torch.arange(count, device=self.labels.device)
        dots = torch.stack([(self.weight[row] * self.x).sum(1) for row in rows.unbind(1)], 1)
        if self.inverse is not None:
            dots *= self.inverse[rows]
        target, place = dots.max(1)
        nearest = rows.gather(1, place[:, None]).squeeze(1)
        if self.inverse is not None:
            return target, nearest, torch.ones_like(target)
        return target, nearest, unit_vectors(self.weight[nearest])[1]

    def sum_of_others(self) -> Tensor:
        """The log-sum-exp, or sum of softplus, over all classes but the own."""
        size = len(self.x)
        highest = self.x.new_full((size, 1), _LOWEST)
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
        return (highest + total.log_()).clamp_(min=_LOWEST).squeeze(1)

    def similarity(self, chunk: _Chunk) -> tuple[Tensor, Tensor | None]:
        """Similarities to a chunk's classes, in the buffer, and which sub-centre gave each."""
        rows = (chunk.stop - chunk.start) * self.options.subcenters
        table = self.buffer[: len(self.x) * rows].view(len(self.x), rows)
        torch.mm(self.x, self.weight[chunk.rows].t(), out=table)
        if self.inverse is not None:
            table *= self.inverse[chunk.rows]
        if self.options.subcenters == 1:
            return table, None
        classes = chunk.stop - chunk.start
        best = table.view(len(self.x), classes, self.options.subcenters).max(2)
        return best.values, best.indices

    def scores(self, similarity: Tensor, chunk: _Chunk) -> Tensor:
        """What the similarities weigh; may overwrite them."""
        if self.others is not None:
            similarity = self.others.score(similarity)
        scores = similarity.mul_(self.options.scale) if self.options.scale != 1 else similarity
        return scores if self.bias is None else scores.add_(self.bias[chunk.start : chunk.stop])

    def put(self, table: Tensor, chunk: _Chunk, values: Tensor) -> None:
        """Write ``values`` (N, 1) where the own class is among a chunk's columns."""
        column = self.labels[:, None] - chunk.start
        width = chunk.stop - chunk.start
        # Rows without such a column write back what is there: nothing waits for a GPU to say so.
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
        """Gradients of features, centres and biases, None for those not ``wanted``."""
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
        """Hand each class's gradient to the sub-centre that gave its similarity."""
        # The own class's sub-centre is that of `own`, should rounding see two as equal.
        self.put(place, chunk, (nearest % self.options.subcenters)[:, None])
        shape = (*table.shape, self.options.subcenters)
        wide = self.buffer[: table.numel() * shape[2]].view(shape).zero_()
        return wide.scatter_(2, place[..., None], table[..., None]).flatten(1)

    def add_products(
        self, table: Tensor, chunk: _Chunk, grad_x: Tensor | None, grad_weight: Tensor | None
    ) -> None:
        """The two products of a chunk: onto the features, and its centres' own gradient."""
        centres = self.weight[chunk.rows]
        inverse = None if self.inverse is None else self.inverse[chunk.rows]
        own = None if grad_weight is None else grad_weight[chunk.rows]
        if own is not None:
            torch.mm(table.t(), self.x, out=own)
        if grad_x is not None:
            grad_x.addmm_(table if inverse is None else table.mul_(inverse), centres)
        if own is None or inverse is None:
            return
        # d(w / |w|): what points along the centre does not turn it.
        along = torch.linalg.vecdot(own, centres).mul_(inverse).mul_(inverse)
        own.addcmul_(centres, along[:, None], value=-1)
        own *= inverse.clamp(max=1 / _SHORTEST)[:, None]
