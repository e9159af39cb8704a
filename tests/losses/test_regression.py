"""Registered regression losses, called as heads call them."""

from __future__ import annotations

import pytest
import torch
from mmdet.registry import MODELS

from mmdet_ext.catalog.loss_cases.regression import box_deltas

NAMES = pytest.mark.parametrize('name', ['SmoothL1Loss', 'BalancedL1Loss'])


@NAMES
@pytest.mark.parametrize('reduction', ['mean', 'sum', 'none'])
def test_weights_per_coordinate_count_as_in_mmdet(name: str, reduction: str) -> None:
    """Heads give (N, 4) weights, 0 for negatives, and an avg_factor with means."""
    generator = torch.Generator().manual_seed(0)
    pred, target = (t.double() for t in box_deltas(generator, 50))
    weight = torch.rand(50, 4, generator=generator).double() * (torch.arange(50) % 3 > 0)[:, None]
    factors = (None, 17.0) if reduction != 'sum' else (None,)
    for avg_factor in factors:
        values = []
        for scope in ('mmdet_ext', 'mmdet'):
            loss = MODELS.build({'type': f'{scope}.{name}', 'loss_weight': 3.0})
            leaf = pred.clone().requires_grad_()
            value = loss(leaf, target, weight, avg_factor, reduction)
            values.append((value, *torch.autograd.grad(value.sum(), leaf)))
        torch.testing.assert_close(values[0], values[1], rtol=1e-12, atol=1e-12)
        assert values[0][0].abs().max() > 0.01


@NAMES
def test_no_boxes_with_no_weights_give_a_loss_of_0(name: str) -> None:
    pred = torch.rand(0, 4, requires_grad=True)
    loss = MODELS.build({'type': f'mmdet_ext.{name}'})
    value = loss(pred, torch.rand(0, 4), torch.rand(0, 4))
    assert value.item() == 0
    value.backward()
    assert pred.grad is not None and pred.grad.shape == (0, 4)


@NAMES
def test_an_unknown_keyword_which_mmdet_ignores_is_refused(name: str) -> None:
    pred, target = box_deltas(torch.Generator().manual_seed(0), 3)
    with pytest.raises(TypeError, match='alhpa'):
        MODELS.build({'type': f'mmdet_ext.{name}'})(pred, target, alhpa=1.0)


def test_options_are_those_of_mmdet_and_are_checked() -> None:
    for name, options in (
        ('SmoothL1Loss', {'beta': 0.25}),
        ('BalancedL1Loss', {'alpha': 0.25, 'gamma': 2.0, 'beta': 1.0}),
    ):
        pred, target = (t.double() for t in box_deltas(torch.Generator().manual_seed(0), 50))
        ours, theirs = (
            MODELS.build({'type': f'{scope}.{name}', **options})(pred, target)
            for scope in ('mmdet_ext', 'mmdet')
        )
        assert ours.item() == pytest.approx(theirs.item(), rel=1e-12)
    with pytest.raises(ValueError, match='beta must be a number from 0, got -0.1'):
        MODELS.build({'type': 'mmdet_ext.SmoothL1Loss', 'beta': -0.1})
    with pytest.raises(ValueError, match='gamma must be at most 80 times alpha'):
        MODELS.build({'type': 'mmdet_ext.BalancedL1Loss', 'alpha': 0.01})
