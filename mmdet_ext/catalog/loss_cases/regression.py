"""Regression losses a coordinate."""

from __future__ import annotations

import torch

from mmdet_ext.catalog.loss_cases.case import Inputs, LossCase


def box_deltas(generator: torch.Generator, count: int) -> Inputs:
    """Encoded boxes (count, 4): most errors below 1, one in ten several times larger."""
    target = torch.randn(count, 4, generator=generator)
    error = 0.6 * torch.randn(count, 4, generator=generator)
    far = torch.rand(count, 4, generator=generator) < 0.1
    return target + torch.where(far, 5 * error, error), target


def hard_deltas(generator: torch.Generator, count: int) -> Inputs:
    """Errors of 1e-8 to 2e4 of both signs, among them exact zeros and exact ones."""
    sign = torch.randn(count, 4, generator=generator).sign()
    size = 10 ** (torch.rand(count, 4, generator=generator) * 12 - 8)
    pred = sign * size
    target = torch.where(torch.rand(count, 1, generator=generator) < 0.3, -pred, 0.0)
    kind = torch.arange(count)[:, None] % 8
    pred = torch.where(kind == 0, target, pred)
    return torch.where(kind == 1, target + sign, pred), target


REGRESSION_LOSSES = (
    *(
        LossCase(
            name,
            box_deltas,
            hard_deltas,
            family='regression',
            options=options,
            stock_options=stock_options,
            zero_at_target=True,
            twin=name,
        )
        for name, options, stock_options in (
            ('SmoothL1Loss', {}, None),
            # Stock refuses 0; this is what it takes for it.
            ('SmoothL1Loss', {'beta': 0.0}, {'beta': 1e-9}),
            ('BalancedL1Loss', {}, None),
        )
    ),
)
