"""Facts and slow references of focal loss; equality with mmdet and torchvision."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmdet.models.losses.focal_loss import py_focal_loss_with_prob, py_sigmoid_focal_loss
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from mmdet_ext.functional.classification.binary_terms import probability_floor
from mmdet_ext.functional.classification.cross_entropy import (
    binary_cross_entropy_loss,
    cross_entropy_loss,
)
from mmdet_ext.functional.classification.focal import focal_loss
from tests._helpers.losses.gradients import gradient
from tests._helpers.tolerances import TOLERANCES, assert_equal_but_rounding

GAMMAS = pytest.mark.parametrize('gamma', [0.0, 0.5, 1.0, 2.0, 5.0])
WEIGHT = [0.5, 1.0, 2.0, 4.0]


def slow_focal(p_t: float, gamma: float, weight: float = 1.0) -> float:
    """Compute one element by the formula, in Python numbers."""
    return -weight * (1 - p_t) ** gamma * math.log(p_t)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def softmax(row: list[float]) -> list[float]:
    return [math.exp(x) / sum(map(math.exp, row)) for x in row]


def logits(*shape: int) -> Tensor:
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_numbers_of_the_paper() -> None:
    """Compare section 3.2: at gamma 2, p_t = 0.9 costs 1/100 of cross entropy, 0.968 1/1000."""
    for p_t, factor in ((0.9, 100), (0.968, 1000)):
        pred = torch.tensor([[math.log(p_t / (1 - p_t))]])
        for alpha in (None, -1.0):
            ours = focal_loss(pred, torch.tensor([0]), gamma=2.0, alpha=alpha)
            assert -math.log(p_t) / ours.item() == pytest.approx(factor, rel=0.03)
    # At the start p is 0.01, for 1000 negatives and one positive, alpha is 1/4.
    pred = torch.full((1, 1001), math.log(0.01 / 0.99))
    ours = focal_loss(pred, torch.tensor([0]))[0]
    assert ours[0].item() == pytest.approx(0.25 * 0.99**2 * math.log(100), rel=1e-5)
    assert ours[1].item() == pytest.approx(0.75 * 0.01**2 * -math.log(0.99), rel=1e-4)


@GAMMAS
def test_sigmoid_equals_the_slow_reference(gamma: float) -> None:
    pred, label = logits(6, 4), torch.tensor([0, 1, 2, 3, 4, 9])
    ours = focal_loss(pred, label, gamma=gamma, alpha=0.3)
    assert ours.shape == (6, 4)
    for row, y, values in zip(pred.tolist(), label.tolist(), ours.tolist(), strict=True):
        expected = [
            slow_focal(sigmoid(x), gamma, 0.3) if c == y else slow_focal(sigmoid(-x), gamma, 0.7)
            for c, x in enumerate(row)
        ]
        assert values == pytest.approx(expected)


@GAMMAS
def test_softmax_equals_the_slow_reference(gamma: float) -> None:
    """Give the last column, the background, the weight 1 - alpha."""
    pred, label = logits(5, 4), torch.tensor([0, 1, 2, 3, -1])
    ours = focal_loss(pred, label, use_sigmoid=False, gamma=gamma, alpha=0.3)
    assert ours.shape == (5,)
    for row, y, value in zip(pred.tolist()[:4], label.tolist(), ours.tolist(), strict=False):
        weight = 0.7 if y == 3 else 0.3
        assert value == pytest.approx(slow_focal(softmax(row)[y], gamma, weight))
    assert ours[4] == 0


@GAMMAS
@pytest.mark.parametrize('dense', [False, True], ids=['labels', 'elements'])
def test_equals_mmdet_and_torchvision(gamma: float, dense: bool) -> None:
    pred, label = logits(50, 4).requires_grad_(), torch.arange(50) % 5
    one_hot = F.one_hot(label, 5)[:, :4].double()
    ours = focal_loss(pred, one_hot if dense else label, gamma=gamma)
    mmdet = py_sigmoid_focal_loss(pred, one_hot, gamma=gamma, reduction='none')
    torchvision = sigmoid_focal_loss(pred, one_hot, gamma=gamma)
    for theirs in (mmdet, torchvision):
        torch.testing.assert_close(ours, theirs)
        torch.testing.assert_close(gradient(ours, pred), gradient(theirs, pred))


@pytest.mark.parametrize('activated', [False, True])
def test_targets_between_0_and_1_equal_mmdet(activated: bool) -> None:
    pred, truth = logits(3, 5, 4, 4).requires_grad_(), logits(3, 5, 4, 4).flip(0).sigmoid()
    p = pred.clamp(-8, 8).sigmoid() if activated else pred
    ours = focal_loss(p, truth, gamma=1.5, alpha=0.3, activated=activated)
    stock = py_focal_loss_with_prob if activated else py_sigmoid_focal_loss
    theirs = stock(p, truth, gamma=1.5, alpha=0.3, reduction='none')
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(gradient(ours, pred), gradient(theirs, pred))


@GAMMAS
@pytest.mark.parametrize('use_sigmoid', [True, False])
def test_probabilities_give_the_loss_of_their_logits(gamma: float, use_sigmoid: bool) -> None:
    # Clamped, so that every probability is above the floor.
    pred, label = logits(20, 4).clamp(-3, 3).requires_grad_(), torch.arange(20) % 4
    p = pred.sigmoid() if use_sigmoid else pred.softmax(1)
    options = {'use_sigmoid': use_sigmoid, 'gamma': gamma, 'alpha': WEIGHT}
    by_logit = focal_loss(pred, label, **options)
    by_p = focal_loss(p, label, activated=True, **options)
    torch.testing.assert_close(by_p, by_logit)
    torch.testing.assert_close(gradient(by_p, pred), gradient(by_logit, pred))


@pytest.mark.parametrize('alpha', [None, -1.0])
def test_without_gamma_and_alpha_it_is_bitwise_cross_entropy(
    alpha: float | None,
) -> None:
    pred = logits(40, 4).float().requires_grad_()
    label, background = torch.arange(40) % 5 - 1, torch.arange(40) % 6 - 1
    truth = torch.rand(40, 4)
    for ours, plain in (
        (focal_loss(pred, label, False, 0.0, alpha), cross_entropy_loss(pred, label)),
        *(
            (focal_loss(pred, target, True, 0.0, alpha), binary_cross_entropy_loss(pred, target))
            for target in (background, truth)
        ),
    ):
        assert torch.equal(ours, plain)
        assert torch.equal(gradient(ours, pred), gradient(plain, pred))


@pytest.mark.parametrize('dense', [False, True], ids=['labels', 'elements'])
def test_a_list_weighs_positives_by_class_and_negatives_by_its_mean_or_last(dense: bool) -> None:
    pred, label = logits(5, 4), torch.tensor([0, 1, 2, 3, 4])
    one_hot = F.one_hot(label, 5)[:, :4]
    plain = focal_loss(pred, label, alpha=None)
    for weight, negative in ((WEIGHT, 1.875), ([*WEIGHT, 0.1], 0.1)):
        ours = focal_loss(pred, one_hot if dense else label, alpha=weight)
        factor = torch.where(one_hot.bool(), torch.tensor(weight[:4]).double(), negative)
        torch.testing.assert_close(ours, plain * factor)


def test_a_list_weighs_softmax_rows_by_class_and_background_by_its_mean_or_last() -> None:
    pred, label = logits(5, 5), torch.arange(5)
    plain = focal_loss(pred, label, use_sigmoid=False, alpha=None)
    for weight, background in ((WEIGHT, 1.875), ([*WEIGHT, 0.1], 0.1)):
        ours = focal_loss(pred, label, use_sigmoid=False, alpha=weight)
        factor = torch.tensor([*WEIGHT, background], dtype=torch.float64)
        torch.testing.assert_close(ours, plain * factor)


def test_ignored_labels_cost_nothing_although_mmdet_raises() -> None:
    pred, label = logits(3, 4).requires_grad_(), torch.tensor([1, -1, -100])
    for use_sigmoid in (True, False):
        for activated in (False, True):
            p = pred.sigmoid() if activated else pred
            ours = focal_loss(p, label, use_sigmoid, activated=activated)
            assert ours[0].sum() > 0 and not ours[1:].any()
            assert not gradient(ours, pred)[1:].any()
    with pytest.raises(RuntimeError, match='non-negative'):
        F.one_hot(label, 5)  # the first step of mmdet's loss on the CPU
    elements = torch.tensor([[1.0, 0.0, -1.0, 0.5]])
    assert (focal_loss(pred[:1], elements) == 0).tolist() == [[False, False, True, False]]


@pytest.mark.parametrize('x', [8.5, 12.0, -20.0, 1e4, -1e4])
@pytest.mark.parametrize('gamma', [0.0, 0.5, 2.0])
def test_far_logits_in_half_precision(x: float, gamma: float) -> None:
    pred = torch.tensor([[x, -x]]).half().requires_grad_()
    for label, use_sigmoid in ((0, True), (1, True), (0, False), (1, False)):
        ours = focal_loss(pred, torch.tensor([label]), use_sigmoid, gamma, None)
        found = gradient(ours, pred)
        assert torch.isfinite(ours).all() and torch.isfinite(found).all()
        # A very wrong prediction costs as much as cross entropy; a right one almost nothing.
        wrong = (x < 0) == (label == 0)
        cost = ours.flatten()[0 if use_sigmoid else -1].item()
        sides = abs(x) if use_sigmoid else 2 * abs(x)
        if use_sigmoid and label == 1:
            wrong = x > 0
        assert cost == pytest.approx(sides if wrong else 0.0, rel=2e-3, abs=1e-3)


@pytest.mark.parametrize('gamma', [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize('dense', [False, True], ids=['labels', 'elements'])
def test_probabilities_of_exactly_0_and_1(gamma: float, dense: bool) -> None:
    pred = torch.tensor([[0.0, 1.0, 0.0, 1.0]]).half().repeat(2, 1).requires_grad_()
    label = torch.tensor([0, 1])
    target = F.one_hot(label, 4) if dense else label
    ours = focal_loss(pred, target, gamma=gamma, alpha=None, activated=True)
    # Column 0 is wrong for row 0, column 1 is right for row 1; for both, 3 is wrong and 2 right.
    worst = 1 - math.log(2**-14)
    expected = [[worst, worst, 0.0, worst], [0.0, 0.0, 0.0, worst]]
    torch.testing.assert_close(ours.detach(), torch.tensor(expected))
    found = gradient(ours, pred)
    assert torch.isfinite(found).all()
    assert found[0, 0] < -1e3 and found[0, 1] > 1e3 and found[1, 3] > 1e3


SMALL = [1e-3, 1e-5, 1e-6, 1e-8]


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize('gamma', [0.0, 0.7, 2.0])
@pytest.mark.parametrize('dense', [False, True], ids=['labels', 'elements'])
def test_small_probabilities_equal_mmdet(dtype: torch.dtype, gamma: float, dense: bool) -> None:
    # float32 has no number between 1 - 6e-8 and 1.
    pred = torch.tensor([[p, 1 - max(p, 1e-6)] for p in SMALL], dtype=dtype).requires_grad_()
    label = torch.zeros(4).long()
    one_hot = F.one_hot(label, 2)
    ours = focal_loss(pred, one_hot if dense else label, gamma=gamma, activated=True)
    stock = py_focal_loss_with_prob(pred, label, gamma=gamma, reduction='none')
    torch.testing.assert_close(ours, stock, rtol=1e-5, atol=0)
    torch.testing.assert_close(gradient(ours, pred), gradient(stock, pred), rtol=1e-5, atol=0)
    # By hand at 1e-6: a quarter of ln(1e6), and 1e6 as the slope.
    if gamma == 0:
        assert ours[2, 0].item() == pytest.approx(math.log(1e6) / 4, rel=1e-6)
        assert gradient(ours, pred)[2, 0].item() == pytest.approx(-1e6 / 4, rel=1e-6)


def test_small_probabilities_with_softmax_and_in_bfloat16() -> None:
    pred = torch.tensor([[p, 1 - p] for p in SMALL]).bfloat16().requires_grad_()
    for use_sigmoid in (True, False):
        ours = focal_loss(pred, torch.zeros(4).long(), use_sigmoid, 0.0, None, activated=True)
        own = (ours[:, 0] if use_sigmoid else ours).tolist()
        expected = [-math.log(p) for p in pred[:, 0].tolist()]
        assert own == pytest.approx(expected, rel=1e-6)
        slope = gradient(ours, pred)[:, 0].tolist()
        assert slope == pytest.approx([-1 / p for p in pred[:, 0].tolist()], rel=1e-2)


def test_the_logarithm_is_a_straight_line_below_the_floor_of_each_precision() -> None:
    for dtype, floor in (
        (torch.float16, 2**-14),
        (torch.bfloat16, 1e-12),
        (torch.float32, 1e-12),
        (torch.float64, 1e-12),
    ):
        assert probability_floor(dtype) == floor
        pred = torch.zeros(1, 1, dtype=dtype)
        value = focal_loss(pred, torch.tensor([0]), gamma=0.0, alpha=None, activated=True)
        assert value.item() == pytest.approx(1 - math.log(floor), rel=1e-6)


@pytest.mark.parametrize('weight', [4.0, 10.49, 1000.0])
@pytest.mark.parametrize('gamma', [0.0, 0.5, 2.0, 5.0])
def test_heavy_classes_have_finite_gradients_in_float16(weight: float, gamma: float) -> None:
    pred = torch.tensor([[0.0, 1.0], [2**-24, 1.0], [1e-3, 0.999], [1.0, 0.0]]).half()
    pred.requires_grad_()
    label = torch.zeros(4).long()
    one_hot = F.one_hot(label, 2)
    for alpha in ([weight, 1.0], torch.tensor([weight, 1.0, weight])):
        for target, use_sigmoid in ((label, True), (one_hot, True), (label, False)):
            if not use_sigmoid:
                alpha = [weight, 1.0]
            ours = focal_loss(pred, target, use_sigmoid, gamma, alpha, activated=True)
            found = gradient(ours, pred)
            assert torch.isfinite(found).all() and found[0, 0] < -3e4
            own = ours[:, 0] if use_sigmoid else ours
            # The loss still falls as the probability grows, to exactly 0 at 1.
            assert (own.diff() < 0).all() and own[3] == 0


def test_weights_up_to_two_and_other_precisions_keep_their_floor() -> None:
    pred, label = torch.tensor([[1e-4]]), torch.tensor([0])
    for dtype, weight in ((torch.float16, 2.0), (torch.bfloat16, 1e3), (torch.float32, 1e3)):
        p = pred.to(dtype)
        ours = focal_loss(p, label, gamma=0.0, alpha=[weight], activated=True)
        assert ours.item() == pytest.approx(-weight * math.log(p.item()), rel=1e-5)


def test_alpha_from_numpy() -> None:
    pred, label = logits(5, 4), torch.tensor([0, 1, 2, 3, 4])
    for alpha, plain in (
        (np.float32(0.25), 0.25),
        (np.float64(0.5), 0.5),
        (np.int64(1), 1),
        (np.array(WEIGHT), WEIGHT),
    ):
        found = focal_loss(pred, label, alpha=alpha)
        assert torch.equal(found, focal_loss(pred, label, alpha=plain))


def test_gradients_by_finite_differences() -> None:
    pred, label = logits(5, 3, 2).requires_grad_(), torch.arange(10).reshape(5, 2) % 4 - 1
    truth = logits(5, 3, 2).flip(0).sigmoid()
    calls = (
        lambda p: focal_loss(p, label, gamma=0.5, alpha=[1.0, 2.0, 3.0]),
        lambda p: focal_loss(p, truth, gamma=1.5, alpha=[1.0, 2.0, 3.0]),
        lambda p: focal_loss(p, label, False, gamma=0.5, alpha=0.3),
        lambda p: focal_loss(p.sigmoid(), label, gamma=0.5, activated=True),
        lambda p: focal_loss(p.sigmoid(), truth, gamma=1.5, activated=True),
        lambda p: focal_loss(p.sigmoid(), label, False, gamma=0.5, activated=True),
    )
    for call in calls:
        assert torch.autograd.gradcheck(call, pred)


def test_maps_have_their_classes_in_dimension_1() -> None:
    """Compare within rounding: maps and rows take other paths through the processor."""
    pred, label = logits(3, 5, 4, 4), torch.arange(48).reshape(3, 4, 4) % 6 - 1
    rows, flat = pred.movedim(1, -1).reshape(-1, 5), label.reshape(-1)
    ours = focal_loss(pred, label, alpha=[*WEIGHT, 1.0])
    torch.testing.assert_close(
        ours.movedim(1, -1).reshape(-1, 5), focal_loss(rows, flat, alpha=[*WEIGHT, 1.0])
    )
    label = label.clamp(max=4)
    ours = focal_loss(pred, label, False, alpha=WEIGHT)
    by_row = focal_loss(rows, label.reshape(-1), False, alpha=WEIGHT)
    torch.testing.assert_close(ours.reshape(-1), by_row, **TOLERANCES[torch.float64])


@pytest.mark.parametrize('activated', [False, True])
@pytest.mark.parametrize('gamma', [0.0, 1.5])
def test_the_value_is_the_same_without_a_gradient(gamma: float, activated: bool) -> None:
    pred, label = logits(8, 4), torch.arange(8) % 5 - 1
    p = (pred.sigmoid() if activated else pred).requires_grad_()
    truth = logits(8, 4).flip(0).sigmoid()
    for target, use_sigmoid in ((label, True), (label, False), (truth, True)):
        options = {'gamma': gamma, 'alpha': WEIGHT, 'activated': activated}
        value = focal_loss(p, target, use_sigmoid, **options)
        with torch.no_grad():
            plain = focal_loss(p, target, use_sigmoid, **options)
        assert value.requires_grad and not plain.requires_grad
        assert_equal_but_rounding(value.detach(), plain)


@pytest.mark.slow
def test_compiles_in_one_graph() -> None:
    pred, label = logits(8, 4), torch.arange(8) % 5 - 1
    for use_sigmoid in (True, False):
        for alpha in (0.25, None, WEIGHT):
            compiled = torch.compile(focal_loss, fullgraph=True, backend='aot_eager')
            torch.testing.assert_close(
                compiled(pred, label, use_sigmoid, 2.0, alpha),
                focal_loss(pred, label, use_sigmoid, 2.0, alpha),
            )


@pytest.mark.slow
@pytest.mark.parametrize('use_sigmoid', [True, False])
def test_probabilities_of_float16_compile_in_one_graph(use_sigmoid: bool) -> None:
    torch.compiler.reset()  # graphs of other tests count towards the limit of variants
    pred, label = logits(8, 4).sigmoid().half(), torch.arange(8) % 5 - 1
    compiled = torch.compile(focal_loss, fullgraph=True, backend='aot_eager')
    for alpha in (None, [8.0, *WEIGHT[1:]], torch.tensor([8.0, *WEIGHT[1:]])):
        torch.testing.assert_close(
            compiled(pred, label, use_sigmoid, 2.0, alpha, True),
            focal_loss(pred, label, use_sigmoid, 2.0, alpha, True),
        )


def test_wrong_input_is_reported() -> None:
    pred, label = torch.zeros(2, 3), torch.zeros(2).long()
    with pytest.raises(ValueError, match='gamma must be from 0, got -1'):
        focal_loss(pred, label, gamma=-1.0)
    with pytest.raises(ValueError, match=r'alpha must be at most 1, got 1.5.*Give a list'):
        focal_loss(pred, label, alpha=1.5)
    with pytest.raises(ValueError, match=r'4, or 3 without the background.*got \(2,\)'):
        focal_loss(pred, label, alpha=[1.0, 2.0])
    with pytest.raises(ValueError, match=r'3, or 2 without the background.*got \(4,\)'):
        focal_loss(pred, label, use_sigmoid=False, alpha=WEIGHT)
    with pytest.raises(ValueError, match=r'labels \(2,\).*got \(2, 3\)'):
        focal_loss(pred, torch.zeros(2, 3), use_sigmoid=False)
    for activated in (False, True):
        with pytest.raises(ValueError, match='target has the label 7, but pred has 3 columns'):
            focal_loss(pred, torch.tensor([2, 7]), use_sigmoid=False, activated=activated)
    # In the sigmoid form the label is background.
    assert torch.equal(focal_loss(pred, label + 7), focal_loss(pred, label + 3))


def test_no_classes_are_refused_unless_there_are_no_labels() -> None:
    for use_sigmoid in (True, False):
        with pytest.raises(ValueError, match=r'a class or more.*got \(2, 0\).*num_classes'):
            focal_loss(torch.zeros(2, 0), torch.zeros(2).long(), use_sigmoid)
    with pytest.raises(ValueError, match='a class or more'):
        focal_loss(torch.zeros(2, 0, 4), torch.zeros(2, 4).long())
    for shape in ((0, 0), (2, 0, 0)):
        pred = torch.zeros(shape).requires_grad_()
        label = torch.zeros(shape[:1] + shape[2:]).long()
        focal_loss(pred, label).sum().backward()
        assert pred.grad.shape == shape
    assert focal_loss(torch.zeros(2, 0), torch.zeros(2, 0)).shape == (2, 0)
