"""Cases of the losses for classes of unequal frequency."""

from __future__ import annotations

import torch
from torch import Tensor

from mmdet_ext.catalog.loss_cases.inputs import Inputs, MakeInputs, loss_case

#: Number of foreground classes, and the number of examples of each.
CLASSES = 5
COUNTS = [1000, 300, 20, 3, 0]


def logits_and_labels(columns: int) -> tuple[MakeInputs, MakeInputs]:
    """Return makers of ordinary and hard logits (N, columns), with labels to the background."""

    def ordinary(generator: torch.Generator, count: int) -> Inputs:
        pred = 2 * torch.randn(count, columns, generator=generator)
        return pred, torch.randint(CLASSES + 1, (count,), generator=generator)

    def hard(generator: torch.Generator, count: int) -> Inputs:
        pred = _hard_logits(generator, count, columns)
        # A third is background, some are ignored.
        label = torch.randint(-1, CLASSES + 1, (count,), generator=generator)
        background = torch.rand(count, generator=generator) < 0.3
        return pred, torch.where(background, CLASSES, label)

    return ordinary, hard


def logits_and_table(generator: torch.Generator, count: int) -> Inputs:
    """Make logits (N, CLASSES) with a table of targets: 0, 1 and between."""
    pred = 2 * torch.randn(count, CLASSES, generator=generator)
    table = torch.rand(count, CLASSES, generator=generator)
    return pred, torch.where(table < 0.6, table.round(), table)


def hard_logits_and_table(generator: torch.Generator, count: int) -> Inputs:
    """Make hard logits with a table of -1 (ignored), 0, 1 and between; some rows of one kind."""
    pred = _hard_logits(generator, count, CLASSES)
    table = torch.rand(count, CLASSES, generator=generator) * 3 - 1
    table = torch.where((table > 0) & (table < 1), table, table.round().clamp(-1, 1))
    kind = torch.arange(count)[:, None] % 10
    return pred, torch.where(kind < 3, kind.float() - 1, table)


def _hard_logits(generator: torch.Generator, count: int, columns: int) -> Tensor:
    """Make logits of either sign and size 1e-4 to 1e4; some rows are 0, equal, or extreme."""
    sign = torch.randn(count, columns, generator=generator).sign()
    pred = sign * 10 ** (torch.rand(count, columns, generator=generator) * 8 - 4)
    kind = torch.arange(count)[:, None] % 12
    pred = torch.where(kind == 0, 0.0, pred)
    pred = torch.where(kind == 1, pred[:, :1], pred)
    return torch.where(kind == 2, 1e4 * sign, pred)


LONG_TAIL_LOSSES = (
    # Softmax: a column for the background, with and without a count of its own.
    loss_case('LogitAdjustedLoss', *logits_and_labels(CLASSES + 1), options={'counts': COUNTS}),
    loss_case(
        'LogitAdjustedLoss',
        *logits_and_labels(CLASSES + 1),
        options={'counts': [*COUNTS, 5000], 'tau': 0.5, 'ignore_index': 3},
    ),
    loss_case(
        'LogitAdjustedLoss',
        *logits_and_labels(CLASSES),
        options={'counts': COUNTS, 'use_sigmoid': True},
    ),
    loss_case(
        'LogitAdjustedLoss',
        logits_and_table,
        hard_logits_and_table,
        options={'counts': COUNTS, 'use_sigmoid': True},
    ),
    loss_case('BalancedSoftmaxLoss', *logits_and_labels(CLASSES + 1), options={'counts': COUNTS}),
    loss_case(
        'EqualizedFocalLoss',
        *logits_and_labels(CLASSES),
        options={'gradient_ratio': [1.0, 0.5, 0.1, 0.02, 0.0]},
    ),
    loss_case(
        'EqualizedFocalLoss',
        logits_and_table,
        hard_logits_and_table,
        options={'gradient_ratio': [1.0, 0.5, 0.1, 0.02, 0.0]},
    ),
    # The ratio comes from all elements together, and is a constant in the gradient.
    loss_case('EqualizedFocalLoss', *logits_and_labels(CLASSES), detaches=True, together=True),
)
