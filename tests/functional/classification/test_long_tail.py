"""Facts and slow references of logit adjustment and balanced softmax."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmdet.models.losses import CrossEntropyLoss as StockCrossEntropyLoss
from torch import Tensor

from mmdet_ext.catalog.loss_cases.long_tail import (
    CLASSES,
    hard_logits_and_table,
    logits_and_labels,
    logits_and_table,
)
from mmdet_ext.functional.classification.long_tail import (
    balanced_softmax_loss,
    class_adjustment,
    logit_adjusted_loss,
)
from tests._helpers.losses.gradients import saved_tables, seeded, value_and_gradient
from tests._helpers.losses.long_tail import labelled, one_hot
from tests._helpers.tolerances import TOLERANCES

EXACT = TOLERANCES[torch.float64]
COUNTS = [1000.0, 300.0, 20.0, 3.0, 1.0]


def slow_softmax(row: list[float], label: int, counts: list[float], tau: float) -> float:
    """Compute the loss from powers of the counts, without logarithms of them."""
    terms = [n**tau * math.exp(x) for n, x in zip(counts, row, strict=True)]
    return -math.log(terms[label] / sum(terms))


def test_adjustment_by_hand() -> None:
    assert class_adjustment([1, math.e, math.e**2]) == pytest.approx([-2.0, -1.0, 0.0])
    assert class_adjustment([1, math.e, math.e**2], tau=0.5) == pytest.approx([-1.0, -0.5, 0.0])
    assert class_adjustment([5, 70, 0], tau=0.0) == [0.0, 0.0, 0.0]
    # Only proportions matter: frequencies give the same as counts.
    assert class_adjustment([0.1, 0.2, 0.7]) == pytest.approx(class_adjustment([10, 20, 70]))
    # A class that never occurs counts as the rarest that does, also with all counts below 1.
    assert class_adjustment([0, 0.2, 0.8]) == pytest.approx([-math.log(4), -math.log(4), 0.0])


def test_softmax_by_hand() -> None:
    pred = torch.zeros(3, 3, dtype=torch.float64)
    label = torch.tensor([0, 1, 2])
    # Equal logits give the frequencies: 3, 1 and, for the background without a count, 3 of 7.
    value = logit_adjusted_loss(pred, label, class_adjustment([3, 1]))
    assert value.tolist() == pytest.approx([math.log(7 / 3), math.log(7), math.log(7 / 3)])
    # With a count of its own the background has 10 of 14.
    value = logit_adjusted_loss(pred, label, class_adjustment([3, 1, 10]))
    assert value.tolist() == pytest.approx([math.log(14 / 3), math.log(14), math.log(1.4)])
    # tau = 1/2 gives the roots: 2, 1 and the background's 2 of 5.
    value = logit_adjusted_loss(pred, label, class_adjustment([4, 1], tau=0.5))
    assert value.tolist() == pytest.approx([math.log(2.5), math.log(5), math.log(2.5)])


def test_sigmoid_by_hand() -> None:
    pred = torch.zeros(2, 2, dtype=torch.float64)
    value = logit_adjusted_loss(pred, torch.tensor([1, 2]), class_adjustment([3, 1]), True)
    # Odds of 1 and 1/3: ln(1 + 1), ln(1 + 3) for a positive, ln(1 + 1/3) for a negative.
    assert value.flatten().tolist() == pytest.approx(
        [math.log(2), math.log(4), math.log(2), math.log(4 / 3)]
    )


@pytest.mark.parametrize('tau', [0.0, 0.5, 1.0, 2.0])
def test_softmax_equals_the_slow_reference(tau: float) -> None:
    pred, label = labelled(CLASSES + 1)
    for counts, padded in (
        (COUNTS, [*COUNTS, 1000.0]),
        ([*COUNTS, 7.0], [*COUNTS, 7.0]),
    ):
        value = logit_adjusted_loss(pred, label, class_adjustment(counts, tau))
        slow = [
            slow_softmax(r, y, padded, tau)
            for r, y in zip(pred.tolist(), label.tolist(), strict=True)
        ]
        assert value.tolist() == pytest.approx(slow, rel=1e-12)


def test_equals_torch_on_logits_plus_the_log_prior() -> None:
    pred, label = labelled(CLASSES + 1, 500)
    pred.requires_grad_()
    counts = torch.tensor([*COUNTS, 50.0], dtype=torch.float64)
    prior = (counts / counts.sum()).log()
    theirs = F.cross_entropy(pred + 1.5 * prior, label, reduction='none')
    ours = logit_adjusted_loss(pred, label, class_adjustment(counts.tolist(), 1.5))
    torch.testing.assert_close(
        value_and_gradient(ours, pred), value_and_gradient(theirs, pred), **EXACT
    )


@pytest.mark.parametrize('use_sigmoid', [False, True])
def test_equal_counts_give_mmdets_cross_entropy(use_sigmoid: bool) -> None:
    pred, label = labelled(CLASSES + (not use_sigmoid), 500)
    if use_sigmoid:  # mmdet's softmax ignores only -100
        label[::7] = -1
    pred = pred.float().requires_grad_()
    ours = logit_adjusted_loss(pred, label, class_adjustment([7] * CLASSES), use_sigmoid)
    stock = StockCrossEntropyLoss(use_sigmoid=use_sigmoid, reduction='none')(pred, label)
    torch.testing.assert_close(
        value_and_gradient(ours, pred),
        value_and_gradient(stock, pred),
        **TOLERANCES[torch.float32],
    )


def test_the_optimum_of_softmax_is_independent_of_the_frequencies() -> None:
    """Check that equal logits are the optimum for labels in proportion to the counts."""
    counts = [6, 3, 1]
    label = torch.tensor([0] * 6 + [1] * 3 + [2])
    bias = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    rows = bias.expand(10, 3)
    logit_adjusted_loss(rows, label, class_adjustment(counts)).sum().backward()
    assert bias.grad is not None
    assert bias.grad.abs().max() < 1e-12
    # Plain cross entropy raises the frequent class there.
    plain = torch.autograd.grad(F.cross_entropy(bias.expand(10, 3), label), bias)[0]
    assert plain[0] < -0.2


def test_background_without_a_count_keeps_its_proportion_to_the_top_class() -> None:
    label = torch.tensor([0] * 6 + [1] * 3 + [2] * 60)
    # With equal foreground logits and the background's ln(60 / 6) above, the gradient is 0.
    bias = torch.tensor([0.0, 0.0, math.log(10)], dtype=torch.float64, requires_grad=True)
    logit_adjusted_loss(bias.expand(69, 3), label, class_adjustment([6, 3])).sum().backward()
    assert bias.grad is not None and bias.grad.abs().max() < 1e-12


def test_the_optimum_of_sigmoid_has_odds_of_equally_frequent_classes() -> None:
    counts, total = [6, 3, 1], 100
    label = torch.cat([torch.full((n,), j) for j, n in enumerate([*counts, total - 10])])
    # The odds n_j / (total - n_j), with the examples taken 6 / n_j times: 6 / (total - n_j).
    odds = [6 / (total - n) for n in counts]
    bias = torch.tensor([math.log(o) for o in odds], dtype=torch.float64, requires_grad=True)
    each = logit_adjusted_loss(bias.expand(total, 3), label, class_adjustment(counts), True)
    each.sum().backward()
    assert bias.grad is not None and bias.grad.abs().max() < 1e-12


def test_balanced_softmax_is_logit_adjustment_with_tau_1() -> None:
    pred, label = labelled(CLASSES + 1)
    for counts in (COUNTS, [*COUNTS, 7.0]):
        torch.testing.assert_close(
            balanced_softmax_loss(pred, label, counts),
            logit_adjusted_loss(pred, label, class_adjustment(counts, 1.0)),
            rtol=0,
            atol=0,
        )
    slow = [
        slow_softmax(r, y, [*COUNTS, 7.0], 1.0)
        for r, y in zip(pred.tolist(), label.tolist(), strict=True)
    ]
    value = balanced_softmax_loss(pred, label, [*COUNTS, 7.0])
    assert value.tolist() == pytest.approx(slow, rel=1e-12)
    scaled = balanced_softmax_loss(pred, label, [n / 11 for n in [*COUNTS, 7.0]])
    torch.testing.assert_close(scaled, value, **EXACT)


@pytest.mark.parametrize('use_sigmoid', [False, True])
def test_ignored_labels_cost_nothing_and_change_no_other_loss(use_sigmoid: bool) -> None:
    pred, label = labelled(CLASSES + (not use_sigmoid))
    pred.requires_grad_()
    marked = label.clone()
    marked[:10], marked[10:15], marked[15:20] = -1, -100, 255
    added = class_adjustment(COUNTS)
    each = logit_adjusted_loss(pred, marked, added, use_sigmoid, ignore_index=255)
    gradient = torch.autograd.grad(each.sum(), pred)[0]
    assert each[:20].abs().max() == 0 and gradient[:20].abs().max() == 0
    plain = logit_adjusted_loss(pred, label, added, use_sigmoid)
    assert torch.equal(each[20:], plain[20:]) and (plain[:20] > 0).any()


def test_a_table_of_targets_equals_labels_and_mixes_between_0_and_1() -> None:
    pred, label = labelled(CLASSES, 200)
    added = class_adjustment(COUNTS)
    pred.requires_grad_()
    table = one_hot(label)
    by_label = value_and_gradient(logit_adjusted_loss(pred, label, added, True), pred)
    for kind in (torch.float64, torch.int64, torch.bool):
        by_table = logit_adjusted_loss(pred, table.to(kind), added, True)
        torch.testing.assert_close(value_and_gradient(by_table, pred), by_label, **EXACT)
    _, soft = logits_and_table(seeded(1), 200)
    soft = soft.double()
    ones, zeros = torch.ones_like(soft), torch.zeros_like(soft)
    mixed, up, down = (logit_adjusted_loss(pred, t, added, True) for t in (soft, ones, zeros))
    torch.testing.assert_close(mixed, soft * up + (1 - soft) * down, **EXACT)


def test_classes_lie_in_dimension_1_of_a_map() -> None:
    pred, label = labelled(CLASSES + 1, 24)
    added = class_adjustment(COUNTS)
    flat = logit_adjusted_loss(pred, label, added)
    as_map = pred.view(2, 3, 4, CLASSES + 1).permute(0, 3, 1, 2)
    shaped = logit_adjusted_loss(as_map, label.view(2, 3, 4), added)
    torch.testing.assert_close(shaped, flat.view(2, 3, 4), **EXACT)


def test_wrong_input_is_reported() -> None:
    pred, label = labelled(CLASSES + 1, 3)
    for message, call in (
        (
            'counts of 4 classes do not fit logits of 6 columns: give 6, or 5 and a background',
            lambda: balanced_softmax_loss(pred, label, COUNTS[:4]),
        ),
        (
            'counts of 5 classes do not fit logits of 6 columns: give 6, in the order',
            lambda: logit_adjusted_loss(pred, label, COUNTS, True),
        ),
        (
            r'target must be labels \(3,\) for pred \(3, 6\).*got \(2,\)',
            lambda: balanced_softmax_loss(pred, label[:2], COUNTS),
        ),
        ('tau must be a number from 0, got -1', lambda: class_adjustment(COUNTS, -1.0)),
        ('counts must be numbers from 0, .* got -2', lambda: class_adjustment([1, -2])),
        (r'counts must be numbers from 0, .* got \[0, 0\]', lambda: class_adjustment([0, 0])),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_counts_from_numpy() -> None:
    assert class_adjustment(np.array([8, 4, 0])) == class_adjustment([8, 4, 0])


def test_labels_beyond_the_columns_are_reported() -> None:
    with pytest.raises(ValueError, match='target has the label 255, but pred has 2 columns'):
        balanced_softmax_loss(torch.zeros(2, 2), torch.tensor([0, 255]), [3, 1])


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_never_nan_and_bounded_gradients(dtype: torch.dtype) -> None:
    generator = seeded(3)
    added = class_adjustment([*COUNTS[:-1], 0.0])
    softmax = logits_and_labels(CLASSES + 1)[1](generator, 20_000)
    sigmoid = logits_and_labels(CLASSES)[1](generator, 20_000)
    table = hard_logits_and_table(generator, 20_000)
    for (pred, target), use_sigmoid in ((softmax, False), (sigmoid, True), (table, True)):
        leaf = pred.to(dtype).requires_grad_()
        each = logit_adjusted_loss(leaf, target, added, use_sigmoid)
        gradient = torch.autograd.grad(each.sum(), leaf)[0]
        assert each.dtype == torch.float32 and torch.isfinite(each).all() and (each >= 0).all()
        assert gradient.abs().max() <= 1.0
        assert each.max() > 5000  # a logit of 1e4 on the wrong side


@pytest.mark.parametrize('use_sigmoid', [False, True])
def test_one_table_is_kept_for_the_backward_pass(use_sigmoid: bool) -> None:
    pred, label = labelled(CLASSES, 30)
    added = class_adjustment(COUNTS)
    label = label if use_sigmoid else label % CLASSES

    def loss(pred: Tensor) -> Tensor:
        return logit_adjusted_loss(pred, label, added, use_sigmoid)

    assert saved_tables(loss, pred) == [(30, CLASSES)]
    assert not loss(pred).requires_grad
