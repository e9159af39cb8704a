"""Losses of the family 'quality'."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from mmdet_ext.catalog.loss_cases.case import Inputs, LossCase

#: Values 0 to 16, as GFL's boxes have them.
VALUES = 17


def labelled(generator: torch.Generator, count: int, classes: int = 5) -> Inputs:
    """Logits (count, classes), and (label, score), where every third is background."""
    pred = 3 * torch.randn(count, classes, generator=generator)
    label = torch.randint(classes, (count,), generator=generator)
    label[::3] = classes
    return pred, (label, _scores(generator, count) * (label < classes))


def dense(generator: torch.Generator, count: int, classes: int = 5) -> Inputs:
    """Logits and scores, both (count, classes); a score above 0 in two of three rows."""
    pred, (label, score) = labelled(generator, count, classes)
    scores = torch.zeros(count, classes + 1)
    scores[torch.arange(count), label] = score
    return pred, scores[:, :classes].contiguous()


def probabilities(generator: torch.Generator, count: int, classes: int = 5) -> Inputs:
    """Probabilities, none of which half precision takes for 0 or 1, and scores, likewise."""
    pred, scores = dense(generator, count, classes)
    return (pred / 2).sigmoid(), scores


def distributions(generator: torch.Generator, count: int, values: int = VALUES) -> Inputs:
    """Logits (count, values) of the values from 0 on, and targets (count,) below the last."""
    pred = 2 * torch.randn(count, values, generator=generator)
    return pred, _scores(generator, count) * (values - 1)


def hard_labelled(generator: torch.Generator, count: int, classes: int = 5) -> Inputs:
    """Logits to 1e4; every kind of label, ignored ones too, with scores of 0, 1 and between."""
    label = torch.randint(-1, classes + 2, (count,), generator=generator)
    return _hard_logits(generator, count, classes), (label, _hard_scores(generator, count))


def hard_dense(generator: torch.Generator, count: int, classes: int = 5) -> Inputs:
    """Logits to 1e4, with scores of 0, 1, what the logits give, and others; whole rows of 0."""
    pred = _hard_logits(generator, count, classes)
    scores = _hard_scores(generator, count * classes).reshape(count, classes)
    scores[1::4] = pred[1::4].sigmoid()
    scores[::4] = 0
    return pred, scores


def hard_probabilities(generator: torch.Generator, count: int, classes: int = 5) -> Inputs:
    """Probabilities of 0, 1, next to them and between; scores likewise."""
    pred, scores = hard_dense(generator, count, classes)
    return pred.sigmoid(), scores


def hard_distributions(generator: torch.Generator, count: int, values: int = VALUES) -> Inputs:
    """Logits to 1e4; targets whole, 0, the last, beyond both, and between."""
    target = _scores(generator, count) * (values + 1) - 1
    target[::4] = target[::4].round()
    return _hard_logits(generator, count, values), target


def _scores(generator: torch.Generator, count: int) -> Tensor:
    return torch.rand(count, generator=generator)


def _hard_scores(generator: torch.Generator, count: int) -> Tensor:
    """0, 1, tiny, next to 1, and between, in turn of chance."""
    kind = torch.randint(5, (count,), generator=generator)
    edges = torch.tensor([0.0, 1.0, 1e-7, 1 - 1e-7])
    return torch.where(kind < 4, edges[kind.clamp(max=3)], _scores(generator, count))


def _hard_logits(generator: torch.Generator, count: int, classes: int) -> Tensor:
    """Sizes from 1e-3 to 1e4 of both signs; every fifth row holds 1e4, -1e4 and 0 alone."""
    shape = (count, classes)
    size = 10 ** (torch.rand(shape, generator=generator) * 7 - 3)
    sign = torch.randint(2, shape, generator=generator) * 2 - 1
    logits = size * sign
    ends = torch.randint(-1, 2, shape, generator=generator) * 1e4
    logits[::5] = ends[::5]
    return logits


QUALITY_LOSSES: tuple[LossCase, ...] = (
    LossCase(
        'GeneralizedFocalLoss',
        labelled,
        hard_labelled,
    ),
    LossCase(
        'GeneralizedFocalLoss',
        distributions,
        hard_distributions,
        options={'use_sigmoid': False},
    ),
    LossCase(
        'QualityFocalLoss',
        labelled,
        hard_labelled,
        twin='QualityFocalLoss',
        bench_inputs=partial(labelled, classes=80),
    ),
    LossCase(
        'QualityFocalLoss',
        dense,
        hard_dense,
        options={'beta': 1.5},
        twin='QualityFocalLoss',
        bench_inputs=partial(dense, classes=80),
    ),
    LossCase(
        'QualityFocalLoss',
        probabilities,
        hard_probabilities,
        options={'activated': True},
        zero_at_target=True,
        twin='QualityFocalLoss',
        bench_inputs=partial(probabilities, classes=80),
    ),
    LossCase(
        'DistributionFocalLoss',
        distributions,
        hard_distributions,
        twin='DistributionFocalLoss',
    ),
    LossCase(
        'VarifocalLoss',
        dense,
        hard_dense,
        twin='VarifocalLoss',
        bench_inputs=partial(dense, classes=80),
    ),
    LossCase('SlideLoss', labelled, hard_labelled, together=True),
    LossCase('SlideLoss', dense, hard_dense, options={'mu': 0.5}),
)
