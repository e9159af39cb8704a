"""Facts and reference twins of the losses for classes of unequal frequency."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmdet.models.losses import CrossEntropyLoss as StockCrossEntropyLoss
from mmdet.models.losses import FocalLoss as StockFocalLoss
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from mmdet_ext.catalog.loss_cases.long_tail import (
    CLASSES,
    hard_logits_and_table,
    logits_and_labels,
    logits_and_table,
)
from mmdet_ext.functional.classification.long_tail import (
    balanced_softmax_loss,
    class_adjustment,
    equalized_focal_loss,
    focal_gradient_sums,
    gradient_ratio,
    logit_adjusted_loss,
)
from tests._helpers.tolerances import TOLERANCES

EXACT = TOLERANCES[torch.float64]
COUNTS = [1000.0, 300.0, 20.0, 3.0, 1.0]
RATIO = [1.0, 0.5, 0.1, 0.02, 0.0]


def labelled(columns: int, count: int = 40, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits in float64 and labels from 0 to CLASSES, the last a background."""
    pred, label = logits_and_labels(columns)[0](torch.Generator().manual_seed(seed), count)
    return pred.double(), label


def one_hot(label: Tensor) -> Tensor:
    """(N, CLASSES), with rows of zeros for the background."""
    return F.one_hot(label, CLASSES + 1)[:, :CLASSES]


def value_and_gradient(each: Tensor, pred: Tensor) -> tuple[Tensor, Tensor]:
    return each.detach(), torch.autograd.grad(each.sum(), pred)[0]


def slow_softmax(row: list[float], label: int, counts: list[float], tau: float) -> float:
    """By products of the counts to the power of tau, without logarithms of them."""
    terms = [n**tau * math.exp(x) for n, x in zip(counts, row, strict=True)]
    return -math.log(terms[label] / sum(terms))


def slow_focal(
    x: float, t: float, g: float, gamma: float = 2.0, alpha: float = 0.25, scale: float = 8.0
) -> float:
    """One entry of the equalized focal loss by the paper's formula."""
    p = 1 / (1 + math.exp(-x))
    focus = gamma + scale * (1 - g)
    up = -alpha * focus / gamma * (1 - p) ** focus * math.log(p)
    down = -(1 - alpha) * focus / gamma * p**focus * math.log(1 - p)
    return t * up + (1 - t) * down


# What is added to logits


def test_adjustment_by_hand() -> None:
    assert class_adjustment([1, math.e, math.e**2]) == pytest.approx([-2.0, -1.0, 0.0])
    assert class_adjustment([1, math.e, math.e**2], tau=0.5) == pytest.approx([-1.0, -0.5, 0.0])
    assert class_adjustment([5, 70, 0], tau=0.0) == [0.0, 0.0, 0.0]
    # Only proportions matter, so that frequencies do as well as counts.
    assert class_adjustment([0.1, 0.2, 0.7]) == pytest.approx(class_adjustment([10, 20, 70]))
    # A class that never occurs is as the rarest that does, even where all counts are below 1.
    assert class_adjustment([0, 0.2, 0.8]) == pytest.approx([-math.log(4), -math.log(4), 0.0])


def test_softmax_by_hand() -> None:
    pred = torch.zeros(3, 3, dtype=torch.float64)
    label = torch.tensor([0, 1, 2])
    # Equal logits leave the frequencies: 3, 1 and, for the background without a count, 3 of 7.
    value = logit_adjusted_loss(pred, label, class_adjustment([3, 1]))
    assert value.tolist() == pytest.approx([math.log(7 / 3), math.log(7), math.log(7 / 3)])
    # With a count of its own it is one of 14.
    value = logit_adjusted_loss(pred, label, class_adjustment([3, 1, 10]))
    assert value.tolist() == pytest.approx([math.log(14 / 3), math.log(14), math.log(1.4)])
    # tau 1/2 leaves the roots: 2 and 1 of 3 and the background's 2.
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
def test_softmax_against_the_slow_twin(tau: float) -> None:
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


def test_equal_to_torch_on_logits_with_the_log_prior() -> None:
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
def test_equal_counts_give_stock_cross_entropy(use_sigmoid: bool) -> None:
    pred, label = labelled(CLASSES + (not use_sigmoid), 500)
    if use_sigmoid:  # stock's softmax ignores -100 alone
        label[::7] = -1
    pred = pred.float().requires_grad_()
    ours = logit_adjusted_loss(pred, label, class_adjustment([7] * CLASSES), use_sigmoid)
    stock = StockCrossEntropyLoss(use_sigmoid=use_sigmoid, reduction='none')(pred, label)
    torch.testing.assert_close(
        value_and_gradient(ours, pred),
        value_and_gradient(stock, pred),
        **TOLERANCES[torch.float32],
    )


def test_softmax_learns_logits_that_do_not_know_the_frequencies() -> None:
    """Where labels come as often as the counts say, equal logits are the optimum."""
    counts = [6, 3, 1]
    label = torch.tensor([0] * 6 + [1] * 3 + [2])
    bias = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    rows = bias.expand(10, 3)
    logit_adjusted_loss(rows, label, class_adjustment(counts)).sum().backward()
    assert bias.grad is not None
    assert bias.grad.abs().max() < 1e-12
    # The plain cross-entropy pulls the frequent class up there.
    plain = torch.autograd.grad(F.cross_entropy(bias.expand(10, 3), label), bias)[0]
    assert plain[0] < -0.2


def test_background_without_a_count_keeps_its_proportion_to_the_most_frequent_class() -> None:
    label = torch.tensor([0] * 6 + [1] * 3 + [2] * 60)
    # Foreground logits equal, the background's ln(60 / 6) above: no pull.
    bias = torch.tensor([0.0, 0.0, math.log(10)], dtype=torch.float64, requires_grad=True)
    logit_adjusted_loss(bias.expand(69, 3), label, class_adjustment([6, 3])).sum().backward()
    assert bias.grad is not None and bias.grad.abs().max() < 1e-12


def test_sigmoid_learns_odds_as_if_classes_were_equally_frequent() -> None:
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
def test_ignored_labels_cost_nothing_and_change_nothing(use_sigmoid: bool) -> None:
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


def test_a_table_of_targets_is_as_labels_and_mixes_between() -> None:
    pred, label = labelled(CLASSES, 200)
    added = class_adjustment(COUNTS)
    pred.requires_grad_()
    table = one_hot(label)
    by_label = value_and_gradient(logit_adjusted_loss(pred, label, added, True), pred)
    for kind in (torch.float64, torch.int64, torch.bool):
        by_table = logit_adjusted_loss(pred, table.to(kind), added, True)
        torch.testing.assert_close(value_and_gradient(by_table, pred), by_label, **EXACT)
    _, soft = logits_and_table(torch.Generator().manual_seed(1), 200)
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


def test_what_does_not_fit_is_named() -> None:
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


# Equalized focal loss


def test_equalized_focal_by_hand() -> None:
    pred = torch.zeros(1, 3, dtype=torch.float64)
    value = equalized_focal_loss(pred, torch.tensor([1]), [1.0, 0.5, 0.0])[0].tolist()
    # p = 1/2. Exponents 2, 6 and 10; factors 1, 3 and 5; alpha_t 3/4, 1/4 and 3/4.
    ln2 = math.log(2)
    expected = [0.75 / 4 * ln2, 0.25 * 3 / 64 * ln2, 0.75 * 5 / 1024 * ln2]
    assert value == pytest.approx(expected, rel=1e-14)


def test_equalized_focal_against_the_slow_twin() -> None:
    pred, table = (t.double() for t in logits_and_table(torch.Generator().manual_seed(0), 50))
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
def test_equalized_focal_gradient_by_finite_differences(dense: bool) -> None:
    pred, target = labelled(CLASSES, 6)
    if dense:
        target = logits_and_table(torch.Generator().manual_seed(1), 6)[1].double()
    assert torch.autograd.gradcheck(
        lambda p: equalized_focal_loss(p, target, RATIO), pred.requires_grad_()
    )


def test_counts_and_ratios_from_numpy() -> None:
    assert class_adjustment(np.array([8, 4, 0])) == class_adjustment([8, 4, 0])
    pred, label = labelled(CLASSES)
    ours = equalized_focal_loss(pred, label, np.array(RATIO))
    assert torch.equal(ours, equalized_focal_loss(pred, label, RATIO))


def test_labels_beyond_the_columns_and_no_columns_are_named() -> None:
    with pytest.raises(ValueError, match='target has the label 255, but pred has 2 columns'):
        balanced_softmax_loss(torch.zeros(2, 2), torch.tensor([0, 255]), [3, 1])
    with pytest.raises(ValueError, match='a class or more'):
        equalized_focal_loss(torch.zeros(2, 0), torch.zeros(2).long(), [])
    assert equalized_focal_loss(torch.zeros(0, 0), torch.zeros(0).long(), []).shape == (0, 0)


def test_a_rare_class_is_focused_more() -> None:
    """Easy negatives of a class with few positive gradients cost less, hard ones more."""
    pred = torch.tensor([[-3.0, -3.0], [6.0, 6.0]], dtype=torch.float64)
    easy, hard = equalized_focal_loss(pred, torch.tensor([2, 2]), [1.0, 0.0]).tolist()
    assert easy[1] < 1e-6 * easy[0]
    assert hard[1] > 4.8 * hard[0]


def test_labels_ignored_by_stock_with_an_error_cost_nothing() -> None:
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


def test_gradient_sums_are_those_of_autograd() -> None:
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
    generator = torch.Generator().manual_seed(3)
    added = class_adjustment([*COUNTS[:-1], 0.0])
    softmax = logits_and_labels(CLASSES + 1)[1](generator, 20_000)
    sigmoid = logits_and_labels(CLASSES)[1](generator, 20_000)
    table = hard_logits_and_table(generator, 20_000)
    for (pred, target), loss, bound in (
        (softmax, lambda p, t: logit_adjusted_loss(p, t, added), 1.0),
        (sigmoid, lambda p, t: logit_adjusted_loss(p, t, added, True), 1.0),
        (table, lambda p, t: logit_adjusted_loss(p, t, added, True), 1.0),
        (sigmoid, lambda p, t: equalized_focal_loss(p, t, RATIO), 23.4),
        (table, lambda p, t: equalized_focal_loss(p, t, RATIO), 23.4),
    ):
        leaf = pred.to(dtype).requires_grad_()
        each = loss(leaf, target)
        gradient = torch.autograd.grad(each.sum(), leaf)[0]
        assert each.dtype == torch.float32 and torch.isfinite(each).all() and (each >= 0).all()
        assert gradient.abs().max() <= bound
        assert each.max() > 5000  # a logit of 1e4 on the wrong side


def test_one_table_is_kept_for_the_backward_pass() -> None:
    pred, label = labelled(CLASSES, 30)
    added = class_adjustment(COUNTS)
    for call in (
        lambda p: logit_adjusted_loss(p, label % CLASSES, added),
        lambda p: logit_adjusted_loss(p, label, added, True),
        lambda p: equalized_focal_loss(p, label, RATIO),
    ):
        kept: list[Tensor] = []

        def keep(tensor: Tensor, kept: list[Tensor] = kept) -> Tensor:
            kept.append(tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            call(pred.clone().requires_grad_())
        assert [tuple(t.shape) for t in kept if t.dim() > 1 and t.shape[1] > 1] == [(30, CLASSES)]
        assert not call(pred).requires_grad


def test_bad_options_of_equalized_focal_loss_are_named() -> None:
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
