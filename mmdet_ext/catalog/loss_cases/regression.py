"""Cases of the regression losses per coordinate."""

from __future__ import annotations

import torch

from mmdet_ext.catalog.loss_cases.inputs import Inputs, loss_case


def box_deltas(generator: torch.Generator, count: int) -> Inputs:
    """Draw encoded boxes (count, 4): most errors below 1, one in ten several times larger."""
    target = torch.randn(count, 4, generator=generator)
    error = 0.6 * torch.randn(count, 4, generator=generator)
    far = torch.rand(count, 4, generator=generator) < 0.1
    return target + torch.where(far, 5 * error, error), target


def hard_deltas(generator: torch.Generator, count: int) -> Inputs:
    """Draw errors of 1e-8 to 2e4 of both signs, among them exactly 0 and exactly 1."""
    sign = torch.randn(count, 4, generator=generator).sign()
    size = 10 ** (torch.rand(count, 4, generator=generator) * 12 - 8)
    pred = sign * size
    target = torch.where(torch.rand(count, 1, generator=generator) < 0.3, -pred, 0.0)
    kind = torch.arange(count)[:, None] % 8
    pred = torch.where(kind == 0, target, pred)
    return torch.where(kind == 1, target + sign, pred), target


REGRESSION_LOSSES = (
    *(
        loss_case(
            name,
            box_deltas,
            hard_deltas,
            family='regression',
            options=options,
            stock_options=stock_options,
            zero_at_target=True,
            twin=True,
        )
        for name, options, stock_options in (
            ('SmoothL1Loss', {}, None),
            # mmdet refuses 0; the tiny value stands for it.
            ('SmoothL1Loss', {'beta': 0.0}, {'beta': 1e-9}),
            ('BalancedL1Loss', {}, None),
        )
    ),
)
