"""Similarity of a sample to its own class, and the combined weight of all other classes.

A classifier over C identities compares N features with C class centres. The loss of a sample needs
two numbers only: the similarity to its own centre, and the sum over all other classes::

    d_ij   = max_k <x_i, v_jk>            v is w, or w / |w|; k over the sub-centres of class j
    z_ij   = scale f(d_ij) + bias_j       f is the identity, or the rule of an `OtherScores`
    target = d_iy                         y is the label of sample i
    others = log sum_{j != y} exp(z_ij)         for kind 'softmax'
             sum_{j != y} log(1 + exp(z_ij))    for kind 'sigmoid'

Margins change ``target`` alone. They act on N numbers in plain autograd
(`mmdet_ext.functional.embedding.margins`).

Three computations give the same numbers. The plain one holds the N x C table of scores, and
autograd keeps several copies of it. The exact one visits the classes in chunks that fit the cache
and carries the logarithm of the sum along. Its backward pass computes each chunk again. It needs
four matrix products instead of three, and memory that does not grow with C. The kept one is the
exact one, with one table of products kept for the backward pass: three products.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from mmdet_ext.functional.embedding.chunked_competition import (
    LOWEST,
    ChunkedCompetition,
    CompetitionOptions,
    Kind,
    OtherScores,
)
from mmdet_ext.functional.numerics.bounds import at_least
from mmdet_ext.functional.numerics.checks import check_one_of, check_that
from mmdet_ext.functional.numerics.directions import shortest_length, unit_vectors
from mmdet_ext.functional.numerics.precision import promote_half

__all__ = ['Competition', 'Computation', 'class_competition']

Computation = Literal['plain', 'exact', 'kept']

# Elements of one chunk of the table. On a CPU, the chunk and its centres share the second-level
# cache. A GPU needs large products.
_CHUNK_ELEMENTS = {'cpu': 2**18}
_CHUNK_ELEMENTS_ELSEWHERE = 2**25
# Largest scale / |w| where centres are float16. Centres may be short: heads initialise them with a
# standard deviation of 0.01.
_LARGEST_IN_HALF = 2.0**13


class Competition(NamedTuple):
    """Differentiable results of a batch; float64 if an input is float64, float32 otherwise.

    Attributes:
        target: similarity to the own centre, (N,).
        center_norm: length of the own centre, (N,); ones where centres are normalised.
        others: combined weight of all other classes, (N,).
    """

    target: Tensor
    center_norm: Tensor
    others: Tensor


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
    path: Computation = 'exact',
    chunk: int | None = None,
    elsewhere: bool = False,
) -> Competition:
    """Compute the similarity to the own class and the combined weight of all other classes.

    The formulas stand at the head of this module.

    Args:
        features: x, (N, D). Normalise them first if the loss is to use cosines.
        weight: centres w, (C * num_subcenters, D); the centres of a class are adjacent. Where they
            are normalised, their lengths may be from 1e-32 to 1e36. A zero centre has similarity 0.
        labels: class of each sample, (N,), int64, from 0 to C - 1.
        normalize_weight: whether the similarity uses w / |w| instead of w.
        scale: factor on the scores of the other classes. ``target`` is not scaled.
        class_bias: added to the scores of the other classes, (C,).
        num_subcenters: centres per class; the nearest one gives the similarity.
        kind: 'softmax' lets classes compete in one softmax, 'sigmoid' compares each with a
            threshold.
        others: function of the similarities to the own classes (N,) that returns the rule for the
            similarities to the other classes; None leaves them unchanged.
        path: 'plain' holds the whole table several times, 'exact' never does, and 'kept' does so
            once. Results are equal to 1e-5.
        chunk: classes per chunk without ``path='plain'``; the default fits the cache.
        elsewhere: whether ``weight`` is a part of the classes, of which there may be none. A label
            of -1 then says that the own class is in another part: its target and center_norm are
            0, and all classes of this part are other classes.

    Returns:
        Competition: target, center_norm and others, (N,) each. Without other classes, others is
        half the lowest float32 for 'softmax', and 0 for 'sigmoid'.

    Raises:
        ValueError: for shapes that do not fit, a number of centres that is no multiple of
            ``num_subcenters``, an unknown kind or path; on a CPU also for labels out of range.
    """
    check_one_of('kind', kind, Kind)
    check_one_of('path', path, Computation)
    _check_shapes(features, weight, labels, class_bias, num_subcenters, elsewhere)
    classes = len(weight) // num_subcenters
    check_that(chunk is None or chunk >= 1, 'chunk', chunk, 'at least 1')
    if chunk is None:
        elements = _CHUNK_ELEMENTS.get(features.device.type, _CHUNK_ELEMENTS_ELSEWHERE)
        chunk = max(elements // max(len(features) * num_subcenters, 1), 64)
    options = CompetitionOptions(
        normalize_weight,
        float(scale),
        num_subcenters,
        kind,
        others,
        min(chunk, max(classes, 1)),
        shortest_length(weight.dtype, float(scale), _LARGEST_IN_HALF),
        keep=path == 'kept' and torch.is_grad_enabled(),
        elsewhere=elsewhere,
    )
    with torch.autocast(features.device.type, enabled=False):
        features, weight = promote_half(features, weight)
        bias = None if class_bias is None else class_bias.to(weight.dtype)
        # A table without columns has no largest entry.
        if path == 'plain' and (classes or not elsewhere):
            return _plain(features, weight, labels, bias, options)
        apply: Any = ChunkedCompetition.apply
        return Competition(*apply(features, weight, bias, labels, options))


def _check_shapes(
    features: Tensor,
    weight: Tensor,
    labels: Tensor,
    bias: Tensor | None,
    subcenters: int,
    elsewhere: bool,
) -> None:
    """Raise ValueError, naming the argument, unless all shapes and labels fit."""
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
            f'labels must be integers, one per feature: ({len(features)},), got '
            f'{tuple(labels.shape)} of {labels.dtype}'
        )
    if bias is not None and bias.shape != (classes,):
        raise ValueError(f'class_bias must be ({classes},), got {tuple(bias.shape)}')
    # Reading labels on a GPU would wait for the device. There the gather itself fails.
    if labels.device.type == 'cpu' and len(labels) and not torch.compiler.is_compiling():
        low, high = (int(value) for value in labels.aminmax())
        least = -1 if elsewhere else 0
        if low < least or high >= classes:
            raise ValueError(
                f'labels must be from {least} to {classes - 1} for {classes} classes, got values '
                f'from {low} to {high}: compare num_classes with the data set'
            )


def _plain(
    x: Tensor, weight: Tensor, labels: Tensor, bias: Tensor | None, options: CompetitionOptions
) -> Competition:
    """Compute the results from the whole table, with autograd."""
    centers = weight
    if options.normalize:
        centers, _ = unit_vectors(weight, shortest=options.shortest, dtype=weight.dtype)
    classes = len(weight) // options.subcenters
    best = F.linear(x, centers).view(len(x), classes, options.subcenters).max(2)
    away = labels < 0
    if options.elsewhere:
        labels = labels.clamp(min=0)
    similarity, column = best.values, labels[:, None]
    norm = x.new_ones(len(x))
    if not options.normalize:
        nearest = labels * options.subcenters + best.indices.gather(1, column).squeeze(1)
        norm = unit_vectors(weight[nearest], dtype=weight.dtype)[1]
    target = similarity.gather(1, column).squeeze(1)
    if options.elsewhere:
        target, norm = target.masked_fill(away, 0), norm.masked_fill(away, 0)
    if options.others is not None:
        rescore = options.others(target.detach())
        similarity = _Rescored.apply(similarity, rescore)  # type: ignore[no-untyped-call]
    scores = options.scale * similarity
    if bias is not None:
        scores = scores + bias
    own = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, column, ~away[:, None])
    if options.kind == 'sigmoid':
        return Competition(target, norm, F.softplus(scores).masked_fill(own, 0).sum(1))
    rest = scores.masked_fill(own, -torch.inf)
    # With one class there are no others. Their weight is 0; its logarithm is clamped to be finite.
    return Competition(target, norm, at_least(rest.logsumexp(1), LOWEST))


class _Rescored(torch.autograd.Function):
    """An `OtherScores` rule as a step of autograd."""

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
