"""Facts and slow references of equalized focal loss, and of its gradient sums."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from mmdet.models.losses import FocalLoss as StockFocalLoss
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from mmdet_ext.catalog.loss_cases.long_tail import (
    CLASSES,
    hard_logits_and_table,
    logits_and_labels,
    logits_and_table,
)
from mmdet_ext.functional.classification.equalized_focal import (
    equalized_focal_loss,
    focal_gradient_sums,
    gradient_ratio,
)
from tests._helpers.losses.gradients import saved_tables, seeded, value_and_gradient
from tests._helpers.losses.long_tail import labelled, one_hot
from tests._helpers.tolerances import TOLERANCES

EXACT = TOLERANCES[torch.float64]
RATIO = [1.0, 0.5, 0.1, 0.02, 0.0]


def slow_focal(
    x: float, t: float, g: float, gamma: float = 2.0, alpha: float = 0.25, scale: float = 8.0
) -> float:
    """Compute one entry by the formula of the paper."""
    p = 1 / (1 + math.exp(-x))
    focus = gamma + scale * (1 - g)
    up = -alpha * focus / gamma * (1 - p) ** focus * math.log(p)
    down = -(1 - alpha) * focus / gamma * p**focus * math.log(1 - p)
    return t * up + (1 - t) * down


def test_values_by_hand() -> None:
    pred = torch.zeros(1, 3, dtype=torch.float64)
    value = equalized_focal_loss(pred, torch.tensor([1]), [1.0, 0.5, 0.0])[0].tolist()
    # p = 1/2. Exponents 2, 6 and 10; factors 1, 3 and 5; alpha_t 3/4, 1/4 and 3/4.
    ln2 = math.log(2)
    expected = [0.75 / 4 * ln2, 0.25 * 3 / 64 * ln2, 0.75 * 5 / 1024 * ln2]
    assert value == pytest.approx(expected, rel=1e-14)


def test_values_equal_the_slow_reference() -> None:
    pred, table = (t.double() for t in logits_and_table(seeded(), 50))
    for options in ({}, {'gamma': 1.0, 'alpha': 0.5, 'scale': 4.0}, {'alpha': 1.0}, {'alpha': 0.0}):
        value = equalized_focal_loss(pred, table, RATIO, **options)
        slow = [
            [slow_focal(x, t, g, **options) for x, t, g in zip(xs, ts, RATIO, strict=True)]
            for xs, ts in zip(pred.tolist(), table.tolist(), strict=True)
        ]
        torch.testing.assert_close(value, torch.tensor(slow, dtype=torch.float64), **EXACT)


@pytest.mark.parametrize(('gamma', 'alpha'), [(2.0, 0.25), (1.5, 0.6)])
def test_balanced_gradients_give_the_focal_loss(gamma: float, alpha: float) -> None:
    pred, label = labelled(CLASSES, 500)
    pred.requires_grad_()
    table = one_hot(label).double()
    expected = value_and_gradient(
        StockFocalLoss(gamma=gamma, alpha=alpha, reduction='none')(pred, label), pred
    )
    torchvision = sigmoid_focal_loss(pred, table, alpha=alpha, gamma=gamma)
    torch.testing.assert_close(value_and_gradient(torchvision, pred), expected, **EXACT)
    for target in (label, table, table.bool()):
        ours = equalized_focal_loss(pred, target, [1.0] * CLASSES, gamma, alpha)
        torch.testing.assert_close(value_and_gradient(ours, pred), expected, **EXACT)


@pytest.mark.parametrize('dense', [False, True])
def test_gradient_by_finite_differences(dense: bool) -> None:
    pred, target = labelled(CLASSES, 6)
    if dense:
        target = logits_and_table(seeded(1), 6)[1].double()
    assert torch.autograd.gradcheck(
        lambda p: equalized_focal_loss(p, target, RATIO), pred.requires_grad_()
    )


def test_ratios_from_numpy() -> None:
    pred, label = labelled(CLASSES)
    ours = equalized_focal_loss(pred, label, np.array(RATIO))
    assert torch.equal(ours, equalized_focal_loss(pred, label, RATIO))


def test_no_columns_are_refused_unless_there_are_no_labels() -> None:
    with pytest.raises(ValueError, match='a class or more'):
        equalized_focal_loss(torch.zeros(2, 0), torch.zeros(2).long(), [])
    assert equalized_focal_loss(torch.zeros(0, 0), torch.zeros(0).long(), []).shape == (0, 0)


def test_a_rare_class_is_focused_more() -> None:
    """Compare a rare class: its easy negatives cost less, its hard negatives more."""
    pred = torch.tensor([[-3.0, -3.0], [6.0, 6.0]], dtype=torch.float64)
    easy, hard = equalized_focal_loss(pred, torch.tensor([2, 2]), [1.0, 0.0]).tolist()
    assert easy[1] < 1e-6 * easy[0]
    assert hard[1] > 4.8 * hard[0]


def test_negative_labels_cost_nothing_although_mmdet_raises() -> None:
    pred, label = labelled(CLASSES)
    pred.requires_grad_()
    label[:5] = -1
    with pytest.raises(RuntimeError):
        StockFocalLoss()(pred, label)
    value, gradient = value_and_gradient(equalized_focal_loss(pred, label, RATIO), pred)
    assert value[:5].abs().max() == 0 and gradient[:5].abs().max() == 0
    assert (value[5:] > 0).all() and (gradient[5:] != 0).all()
    table = one_hot(label.clamp(min=0))
    table[:5] = -1
    by_table = value_and_gradient(equalized_focal_loss(pred, table, RATIO), pred)
    torch.testing.assert_close(by_table, (value, gradient), **EXACT)


def test_gradient_sums_equal_those_of_autograd() -> None:
    pred, label = labelled(CLASSES, 300)
    label[::6] = -1
    pred.requires_grad_()
    table = one_hot(label.clamp(min=0)).bool()
    for ratio in (RATIO, None):
        each = equalized_focal_loss(pred, label, [1.0] * CLASSES if ratio is None else ratio)
        slope = torch.autograd.grad(each.sum(), pred)[0].abs() * (label >= 0)[:, None]
        sums = focal_gradient_sums(pred, label, ratio)
        expected = (slope * table).sum(0), (slope * ~table).sum(0)
        torch.testing.assert_close(sums, expected, **EXACT)
        assert not sums[0].requires_grad
    assert (sums[1] > sums[0]).all() and (sums[0] > 0).all()


def test_gradient_ratio_by_hand() -> None:
    positive = torch.tensor([0.0, 0.0, 1.0, 3.0, 2.0, 1e-38])
    negative = torch.tensor([0.0, 5.0, 4.0, 2.0, 0.0, 1e38])
    assert gradient_ratio(positive, negative).tolist() == [1.0, 0.0, 0.25, 1.0, 1.0, 0.0]


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_never_nan_and_bounded_gradients(dtype: torch.dtype) -> None:
    generator = seeded(3)
    labels = logits_and_labels(CLASSES)[1](generator, 20_000)
    for pred, target in (labels, hard_logits_and_table(generator, 20_000)):
        leaf = pred.to(dtype).requires_grad_()
        each = equalized_focal_loss(leaf, target, RATIO)
        gradient = torch.autograd.grad(each.sum(), leaf)[0]
        assert each.dtype == torch.float32 and torch.isfinite(each).all() and (each >= 0).all()
        assert gradient.abs().max() <= 23.4
        assert each.max() > 5000  # a logit of 1e4 on the wrong side


def test_one_table_is_kept_for_the_backward_pass() -> None:
    pred, label = labelled(CLASSES, 30)

    def loss(pred: Tensor) -> Tensor:
        return equalized_focal_loss(pred, label, RATIO)

    assert saved_tables(loss, pred) == [(30, CLASSES)]
    assert not loss(pred).requires_grad


def test_wrong_options_are_reported() -> None:
    pred, label = labelled(CLASSES, 3)
    for options, message in (
        ({'gamma': 0.0}, 'gamma must be a number above 0, got 0.0'),
        ({'alpha': 1.5}, 'alpha must be from 0 to 1, got 1.5'),
        ({'scale': -1.0}, 'scale must be a number from 0, got -1.0'),
        ({'gradient_ratio': [1.0]}, r'one entry per class, \(5,\), got \(1,\)'),
    ):
        with pytest.raises(ValueError, match=message):
            equalized_focal_loss(pred, label, **{'gradient_ratio': RATIO, **options})
    with pytest.raises(ValueError, match=r'target must be labels \(3,\) for pred \(3, 5\)'):
        equalized_focal_loss(pred, torch.zeros(3, 4), RATIO)
    with pytest.raises(ValueError, match=r'pred must be logits \(N, C\), got \(1, 3, 5\)'):
        equalized_focal_loss(pred[None], torch.zeros(1, 3, 5), RATIO)
