"""Box losses."""

from __future__ import annotations

import torch

from mmdet_ext.testing.loss_cases.case import Inputs, LossCase
from mmdet_ext.testing.synthetic import fuzz_box_pairs, random_boxes


def box_pairs(generator: torch.Generator, count: int) -> Inputs:
    """Targets (count, 4) and predictions whose corners lie about a tenth of a side beside."""
    target = random_boxes(generator, count)
    sides = (target[:, 2:] - target[:, :2]).repeat(1, 2)
    jitter = torch.rand(count, 4, generator=generator) - 0.5
    return target + 0.4 * sides * jitter, target


BOX_LOSSES = (
    LossCase(
        'CIoULoss',
        box_pairs,
        fuzz_box_pairs,
        family='overlap',
        zero_at_target=True,
        detaches=True,
        twin='CIoULoss',
    ),
)
