"""Facts and slow references of the cross entropies."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmdet_ext.functional.classification.cross_entropy import (
    binary_cross_entropy_loss,
    cross_entropy_loss,
    mask_cross_entropy_loss,
)
from tests._helpers.losses.gradients import gradient
from tests._helpers.tolerances import assert_equal_but_rounding

WEIGHT = [0.5, 1.0, 2.0, 0.0]


def slow_cross_entropy(
    row: list[float], truth: list[float], weight: list[float], smoothing: float
) -> float:
    """Compute one row by the formula, in Python numbers."""
    log_sum = max(row) + math.log(sum(math.exp(x - max(row)) for x in row))
    shares = [(1 - smoothing) * t + smoothing / len(row) for t in truth]
    return sum(w * q * (log_sum - x) for w, q, x in zip(weight, shares, row, strict=True))


def slow_binary(x: float, truth: float, weight: float, smoothing: float = 0.0) -> float:
    """Compute one element by the formula, in Python numbers."""
    share = (1 - smoothing) * truth + smoothing / 2
    yes, no = -math.log1p(math.exp(-x)), -math.log1p(math.exp(x))
    return -weight * share * yes - (1 - share) * no


def logits(*shape: int) -> Tensor:
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_closed_forms() -> None:
    pred = torch.tensor([[math.log(1.0), math.log(2.0), math.log(5.0)]])
    for label, share in ((0, 1 / 8), (1, 2 / 8), (2, 5 / 8)):
        value = cross_entropy_loss(pred, torch.tensor([label]))
        assert value.item() == pytest.approx(-math.log(share))
    # sigmoid(ln 3) is 3/4.
    pred = torch.tensor([[math.log(3.0), math.log(3.0)]])
    value = binary_cross_entropy_loss(pred, torch.tensor([1]), pos_weight=[7.0, 2.0])
    assert value.tolist() == [pytest.approx([math.log(4), 2 * math.log(4 / 3)])]


@pytest.mark.parametrize('smoothing', [0.0, 0.1, 1.0])
def test_softmax_equals_the_slow_reference_and_torch(smoothing: float) -> None:
    pred, label = logits(6, 4).requires_grad_(), torch.tensor([0, 1, 2, 3, 255, -1])
    ours = cross_entropy_loss(pred, label, WEIGHT, 255, smoothing)
    one_hot = [[float(c == y) for c in range(4)] for y in label.tolist()]
    for k in range(4):
        expected = slow_cross_entropy(pred[k].tolist(), one_hot[k], WEIGHT, smoothing)
        assert ours[k].item() == pytest.approx(expected)
    assert ours[4:].tolist() == [0.0, 0.0]
    theirs = F.cross_entropy(
        pred,
        label.clamp(min=0),
        torch.tensor(WEIGHT, dtype=torch.float64),
        ignore_index=255,
        reduction='none',
        label_smoothing=smoothing,
    )
    torch.testing.assert_close(ours[:5], theirs[:5])
    torch.testing.assert_close(gradient(ours[:5], pred), gradient(theirs[:5], pred))


def test_distributions_equal_the_slow_reference_and_torch() -> None:
    pred, truth = logits(5, 4).requires_grad_(), logits(5, 4).flip(0).softmax(1)
    ours = cross_entropy_loss(pred, truth, WEIGHT, label_smoothing=0.2)
    expected = [
        slow_cross_entropy(x, t, WEIGHT, 0.2)
        for x, t in zip(pred.tolist(), truth.tolist(), strict=True)
    ]
    assert ours.tolist() == pytest.approx(expected)
    weight = torch.tensor(WEIGHT, dtype=torch.float64)
    theirs = F.cross_entropy(pred, truth, weight, reduction='none', label_smoothing=0.2)
    torch.testing.assert_close(gradient(ours, pred), gradient(theirs, pred))


@pytest.mark.parametrize('smoothing', [0.0, 0.1])
def test_maps_have_their_classes_in_dimension_1(smoothing: float) -> None:
    pred, label = logits(2, 4, 3, 5), torch.arange(30).reshape(2, 3, 5) % 5 - 1
    flat = pred.movedim(1, -1).reshape(-1, 4), label.reshape(-1)
    for function in (cross_entropy_loss, binary_cross_entropy_loss):
        maps = function(pred, label, WEIGHT, label_smoothing=smoothing)
        rows = function(*flat, WEIGHT, label_smoothing=smoothing)
        if function is binary_cross_entropy_loss:
            maps = maps.movedim(1, -1).reshape(-1, 4)
        torch.testing.assert_close(maps.reshape(rows.shape), rows)


@pytest.mark.parametrize('smoothing', [0.0, 0.1])
def test_binary_labels_equal_the_slow_reference(smoothing: float) -> None:
    pred, label = logits(7, 4).requires_grad_(), torch.tensor([0, 1, 2, 3, 4, -1, 255])
    ours = binary_cross_entropy_loss(pred, label, WEIGHT, 255, smoothing)
    for k in range(5):
        expected = [
            slow_binary(x, float(c == label[k]), WEIGHT[c], smoothing)
            for c, x in enumerate(pred[k].tolist())
        ]
        assert ours[k].tolist() == pytest.approx(expected)
    assert not ours[5:].any() and not gradient(ours, pred)[5:].any()


@pytest.mark.parametrize('weight', [None, WEIGHT])
def test_binary_elements_equal_the_slow_reference_and_torch(weight: list[float] | None) -> None:
    pred, truth = logits(6, 4).requires_grad_(), torch.rand(6, 4, dtype=torch.float64)
    truth[0], truth[1], truth[2, 0], truth[2, 1] = 0, 1, -1, 255
    ours = binary_cross_entropy_loss(pred, truth, weight, 255)
    assert ours[2, :2].tolist() == [0.0, 0.0]
    for row in (0, 1, 3, 4, 5):
        expected = [
            slow_binary(x, t, 1.0 if weight is None else weight[c])
            for c, (x, t) in enumerate(zip(pred[row].tolist(), truth[row].tolist(), strict=True))
        ]
        assert ours[row].tolist() == pytest.approx(expected)
    tensor = None if weight is None else torch.tensor(weight, dtype=torch.float64)
    theirs = F.binary_cross_entropy_with_logits(
        pred[3:], truth[3:], pos_weight=tensor, reduction='none'
    )
    torch.testing.assert_close(gradient(ours[3:], pred), gradient(theirs, pred))


def test_labels_and_their_one_hot_targets_agree() -> None:
    pred, label = logits(8, 4).requires_grad_(), torch.tensor([0, 1, 2, 3, 4, 0, 1, -1])
    one_hot = F.one_hot(label.clamp(min=0), 5)[:, :4].double()
    one_hot[label < 0] = -1
    by_label, by_element = (
        binary_cross_entropy_loss(pred, target, WEIGHT) for target in (label, one_hot)
    )
    torch.testing.assert_close(by_label, by_element)
    torch.testing.assert_close(gradient(by_label, pred), gradient(by_element, pred))


@pytest.mark.parametrize('x', [8.5, -20.0, 1e4, -1e4])
def test_far_logits_have_their_exact_cost(x: float) -> None:
    """Compare in half precision, with either side right."""
    pred = torch.tensor([[x, 0.0]]).half().requires_grad_()
    for label in (0, 1):
        wrong_by = max(0.0, -x if label == 0 else x)
        value = cross_entropy_loss(pred, torch.tensor([label]))
        assert value.item() == pytest.approx(wrong_by, abs=1e-3) and value.dtype == torch.float32
        value = binary_cross_entropy_loss(pred, torch.tensor([label]))[:, :1]
        assert value.item() == pytest.approx(wrong_by, abs=1e-3)
        assert gradient(value, pred).abs().max() <= 1
    # The small side keeps its digits: it is exp(-8.5), not a difference of two large numbers.
    value = binary_cross_entropy_loss(torch.tensor([[8.5]]), torch.tensor([0]))
    assert value.item() == pytest.approx(math.log1p(math.exp(-8.5)), rel=1e-6)


def test_a_mask_costs_the_loss_of_its_class_times_the_class_weight() -> None:
    pred = logits(3, 4, 2, 2)
    truth = torch.tensor([[0.0, 1.0], [-1.0, 1.0]], dtype=torch.float64).repeat(3, 1, 1)
    label = torch.tensor([2, 0, 2])
    ours = mask_cross_entropy_loss(pred, truth, label, WEIGHT)
    for k in range(3):
        chosen, weight = pred[k, label[k]].flatten().tolist(), WEIGHT[label[k]]
        expected = [
            weight * slow_binary(x, t, 1.0) if t >= 0 else 0.0
            for x, t in zip(chosen, truth[k].flatten().tolist(), strict=True)
        ]
        assert ours[k].flatten().tolist() == pytest.approx(expected)


@pytest.mark.parametrize('weight', [None, WEIGHT])
def test_masks_of_negative_labels_are_ignored(weight: list[float] | None) -> None:
    pred, truth = logits(4, 4, 2, 2).requires_grad_(), torch.ones(4, 2, 2, dtype=torch.float64)
    label = torch.tensor([2, -1, -100, 1])
    ours = mask_cross_entropy_loss(pred, truth, label, weight)
    kept = mask_cross_entropy_loss(pred[::3], truth[::3], label[::3], weight)
    torch.testing.assert_close(ours[::3], kept)
    assert not ours[1:3].any() and not gradient(ours, pred)[1:3].any()
    # Bytes hold no -1.
    assert torch.equal(mask_cross_entropy_loss(pred, truth.byte(), label, weight), ours)


@pytest.mark.parametrize('weight', [3.0, np.float32(3), np.array([3.0] * 4)])
def test_class_weights_may_be_a_number_or_an_array(weight: float) -> None:
    pred, label = logits(4, 4), torch.arange(4)
    torch.testing.assert_close(
        cross_entropy_loss(pred, label, weight), 3 * cross_entropy_loss(pred, label)
    )


def test_a_label_beyond_the_columns_is_refused_on_the_cpu() -> None:
    pred, label = torch.zeros(2, 3), torch.tensor([2, 255])
    for smoothing in (0.0, 0.1):
        message = r'target has the label 255, but pred has 3 columns, .*up to 2.*ignore_index'
        with pytest.raises(ValueError, match=message):
            cross_entropy_loss(pred, label, label_smoothing=smoothing)
        with pytest.raises(ValueError, match='the label 3, but pred has 3 columns'):
            cross_entropy_loss(pred, label.clamp(max=3), ignore_index=255)
        loss = cross_entropy_loss(pred, label, ignore_index=255, label_smoothing=smoothing)
        assert loss.tolist() == pytest.approx([math.log(3), 0.0])
    # For masks, ignore_index applies to pixels, not to the labels of objects.
    with pytest.raises(ValueError, match='label has the label 3, .*make it negative; otherwise'):
        mask_cross_entropy_loss(torch.zeros(1, 3, 2), torch.zeros(1, 2), torch.tensor([3]))


def test_labels_are_not_read_on_a_gpu() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        # A read of the labels would raise an error here.
        pred = torch.zeros(2, 3, 4, device='cuda', requires_grad=True)
        label = torch.full((2, 4), 255, device='cuda')
        assert cross_entropy_loss(pred, label).device.type == 'cuda'
        assert mask_cross_entropy_loss(pred, label, label[:, 0]).device.type == 'cuda'


def test_no_classes_are_refused_unless_there_are_no_labels() -> None:
    for function in (cross_entropy_loss, binary_cross_entropy_loss):
        for smoothing in (0.0, 0.1):
            with pytest.raises(ValueError, match=r'a class or more.*got \(2, 0\)'):
                function(torch.zeros(2, 0), torch.zeros(2).long(), label_smoothing=smoothing)
            pred = torch.zeros(0, 0).requires_grad_()
            function(pred, torch.zeros(0).long(), label_smoothing=smoothing).sum().backward()
            assert pred.grad.shape == (0, 0)
    with pytest.raises(ValueError, match='a class or more'):
        mask_cross_entropy_loss(torch.zeros(2, 0, 3), torch.zeros(2, 3), torch.zeros(2).long())


def test_wrong_shapes_and_options_are_reported() -> None:
    with pytest.raises(ValueError, match=r'labels \(2, 5\) for pred \(2, 3, 5\).*got \(2,\)'):
        cross_entropy_loss(torch.zeros(2, 3, 5), torch.zeros(2))
    with pytest.raises(ValueError, match=r'or, as targets of each element.*got \(3, 2\)'):
        binary_cross_entropy_loss(torch.zeros(2, 3), torch.zeros(3, 2))
    with pytest.raises(ValueError, match=r'one entry per class: 3, or 2 without.*got \(4,\)'):
        cross_entropy_loss(torch.zeros(2, 3), torch.zeros(2).long(), [1.0] * 4)
    with pytest.raises(ValueError, match=r'label_smoothing must be in \[0, 1\], got -0.1'):
        binary_cross_entropy_loss(torch.zeros(2, 3), torch.zeros(2), label_smoothing=-0.1)
    with pytest.raises(ValueError, match=r'one class per object, \(2,\), got \(3,\)'):
        mask_cross_entropy_loss(torch.zeros(2, 3, 4), torch.zeros(2, 4), torch.zeros(3).long())


@pytest.mark.parametrize('smoothing', [0.0, 0.1])
def test_gradients_by_finite_differences(smoothing: float) -> None:
    pred, label = logits(4, 3, 2).requires_grad_(), torch.tensor([[0, 1], [2, -1], [1, 1], [0, 2]])
    for function in (cross_entropy_loss, binary_cross_entropy_loss):
        assert torch.autograd.gradcheck(
            lambda p, f=function: f(p, label, [1.0, 2.0, 0.5], label_smoothing=smoothing), pred
        )


@pytest.mark.parametrize('smoothing', [0.0, 0.1])
def test_the_value_is_the_same_without_a_gradient(smoothing: float) -> None:
    pred, label = logits(8, 4).requires_grad_(), torch.arange(8) % 5 - 1
    for function in (cross_entropy_loss, binary_cross_entropy_loss):
        value = function(pred, label, WEIGHT, label_smoothing=smoothing)
        plain = function(pred.detach(), label, WEIGHT, label_smoothing=smoothing)
        assert value.requires_grad and not plain.requires_grad
        assert_equal_but_rounding(value.detach(), plain)


def test_compiles_in_one_graph() -> None:
    pred, label = logits(8, 4), torch.arange(8) % 5 - 1
    for function in (cross_entropy_loss, binary_cross_entropy_loss):
        for smoothing in (0.0, 0.1):
            compiled = torch.compile(function, fullgraph=True, backend='aot_eager')
            torch.testing.assert_close(
                compiled(pred, label, WEIGHT, label_smoothing=smoothing),
                function(pred, label, WEIGHT, label_smoothing=smoothing),
            )
    masks = torch.compile(mask_cross_entropy_loss, fullgraph=True, backend='aot_eager')
    inputs = logits(3, 4, 2), torch.ones(3, 2), torch.tensor([2, -1, 0])
    torch.testing.assert_close(masks(*inputs), mask_cross_entropy_loss(*inputs))
