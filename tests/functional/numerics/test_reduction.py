"""Weighted reduction, compared with mmdet's."""

from __future__ import annotations

import itertools

import pytest
import torch
from mmdet.models.losses.utils import weight_reduce_loss

from mmdet_ext.functional.numerics.reduction import weighted_reduce


@pytest.mark.parametrize('reduction', ['none', 'mean', 'sum'])
def test_equal_to_mmdet(reduction: str) -> None:
    loss = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    weights = (None, torch.tensor([[1.0, 0.0], [0.5, 2.0]]), torch.tensor([[2.0], [0.0]]))
    for weight, avg_factor in itertools.product(weights, (None, 3.0)):
        if reduction == 'sum' and avg_factor is not None:
            continue
        ours = weighted_reduce(loss, weight, avg_factor, reduction)
        theirs = weight_reduce_loss(loss, weight, reduction, avg_factor)
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)


@pytest.mark.parametrize('reduction', ['none', 'mean', 'sum'])
def test_a_weight_per_sample_is_recognised_by_its_leading_dimension(reduction: str) -> None:
    # There are as many samples as classes: mmdet's reduction would weight the classes.
    loss = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    ours = weighted_reduce(loss, torch.tensor([2.0, 0.0]), reduction=reduction)
    expected = {'none': [[2.0, 4.0], [0.0, 0.0]], 'mean': 6.0 / 4, 'sum': 6.0}[reduction]
    assert torch.equal(ours, torch.tensor(expected))


def test_avg_factor_may_be_a_tensor_and_zero() -> None:
    loss = torch.tensor([1.0, 2.0])
    assert weighted_reduce(loss, avg_factor=torch.tensor(6.0)).item() == pytest.approx(0.5)
    assert weighted_reduce(loss * 0, avg_factor=0.0).item() == 0


def test_a_weight_that_would_widen_the_loss_is_refused() -> None:
    with pytest.raises(ValueError, match=r'weight of shape \(3, 2\) does not fit .* \(2,\)'):
        weighted_reduce(torch.ones(2), torch.ones(3, 2))
