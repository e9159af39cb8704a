"""Cases of the losses of scores and of distributions."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from mmdet_ext.catalog.case import Case
from mmdet_ext.catalog.loss_cases.inputs import Inputs, loss_case

#: Number of values, 0 to 16, as in GFL.
VALUES = 17


def labelled(generator: torch.Generator, count: int, classes: int = 5) -> Inputs:
    """Make logits (count, classes) and (label, score); every third label is background."""
    pred = 3 * torch.randn(count, classes, generator=generator)
    label = torch.randint(classes, (count,), generator=generator)
    label[::3] = classes
    return pred, (label, _scores(generator, count) * (label < classes))


def dense(generator: torch.Generator, count: int, classes: int = 5) -> Inputs:
    """Make logits and scores, both (count, classes); two of three rows have a score above 0."""
    pred, (label, score) = labelled(generator, count, classes)
    scores = torch.zeros(count, classes + 1)
    scores[torch.arange(count), label] = score
    return pred, scores[:, :classes].contiguous()


def probabilities(generator: torch.Generator, count: int, classes: int = 5) -> Inputs:
    """Make probabilities, none of them 0 or 1 in half precision, and scores."""
    pred, scores = dense(generator, count, classes)
    return (pred / 2).sigmoid(), scores


def distributions(generator: torch.Generator, count: int, values: int = VALUES) -> Inputs:
    """Make logits (count, values) of the values from 0, and targets (count,) below the last."""
    pred = 2 * torch.randn(count, values, generator=generator)
    return pred, _scores(generator, count) * (values - 1)


def hard_labelled(generator: torch.Generator, count: int, classes: int = 5) -> Inputs:
    """Make logits to 1e4, and labels of every kind with scores of 0, 1 and between."""
    label = torch.randint(-1, classes + 2, (count,), generator=generator)
    return _hard_logits(generator, count, classes), (label, _hard_scores(generator, count))


def hard_dense(generator: torch.Generator, count: int, classes: int = 5) -> Inputs:
    """Make logits to 1e4, with scores of 0, 1, the logits' own and others; some rows are 0."""
    pred = _hard_logits(generator, count, classes)
    scores = _hard_scores(generator, count * classes).reshape(count, classes)
    scores[1::4] = pred[1::4].sigmoid()
    scores[::4] = 0
    return pred, scores


def hard_probabilities(generator: torch.Generator, count: int, classes: int = 5) -> Inputs:
    """Make probabilities and scores of 0, 1, next to them and between."""
    pred, scores = hard_dense(generator, count, classes)
    return pred.sigmoid(), scores


def hard_distributions(generator: torch.Generator, count: int, values: int = VALUES) -> Inputs:
    """Make logits to 1e4; targets whole, 0, the last, beyond both, and between."""
    target = _scores(generator, count) * (values + 1) - 1
    target[::4] = target[::4].round()
    return _hard_logits(generator, count, values), target


def _scores(generator: torch.Generator, count: int) -> Tensor:
    """Make scores in [0, 1)."""
    return torch.rand(count, generator=generator)


def _hard_scores(generator: torch.Generator, count: int) -> Tensor:
    """Make scores of 0, 1, near 0, near 1, and between, at random."""
    kind = torch.randint(5, (count,), generator=generator)
    edges = torch.tensor([0.0, 1.0, 1e-7, 1 - 1e-7])
    return torch.where(kind < 4, edges[kind.clamp(max=3)], _scores(generator, count))


def _hard_logits(generator: torch.Generator, count: int, classes: int) -> Tensor:
    """Make logits of size 1e-3 to 1e4; every fifth row holds only 1e4, -1e4 and 0."""
    shape = (count, classes)
    size = 10 ** (torch.rand(shape, generator=generator) * 7 - 3)
    sign = torch.randint(2, shape, generator=generator) * 2 - 1
    logits = size * sign
    ends = torch.randint(-1, 2, shape, generator=generator) * 1e4
    logits[::5] = ends[::5]
    return logits


QUALITY_LOSSES: tuple[Case, ...] = (
    loss_case('GeneralizedFocalLoss', labelled, hard_labelled),
    loss_case(
        'GeneralizedFocalLoss',
        distributions,
        hard_distributions,
        options={'use_sigmoid': False},
    ),
    loss_case(
        'QualityFocalLoss',
        labelled,
        hard_labelled,
        twin=True,
        bench_inputs=partial(labelled, classes=80),
    ),
    loss_case(
        'QualityFocalLoss',
        dense,
        hard_dense,
        options={'beta': 1.5},
        twin=True,
        bench_inputs=partial(dense, classes=80),
    ),
    loss_case(
        'QualityFocalLoss',
        probabilities,
        hard_probabilities,
        options={'activated': True},
        zero_at_target=True,
        twin=True,
        bench_inputs=partial(probabilities, classes=80),
    ),
    loss_case(
        'DistributionFocalLoss',
        distributions,
        hard_distributions,
        twin=True,
    ),
    loss_case(
        'VarifocalLoss',
        dense,
        hard_dense,
        twin=True,
        bench_inputs=partial(dense, classes=80),
    ),
    loss_case('SlideLoss', labelled, hard_labelled, together=True),
    loss_case('SlideLoss', dense, hard_dense, options={'mu': 0.5}),
)
