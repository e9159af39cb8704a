"""Losses of the softmax over the classes of a map."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mmdet_ext.functional.classification.softmax_maps import map_cross_entropy, map_focal_loss
from mmdet_ext.functional.numerics import map_blocks
from tests._helpers.tolerances import TOLERANCES

FLOAT = TOLERANCES[torch.float32]


def logits_and_labels(size: float = 3.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    pred = size * torch.randn(2, 5, 3, 4, generator=generator)
    return pred, torch.randint(-1, 5, (2, 3, 4), generator=generator)


@pytest.mark.parametrize('size', [1e-3, 3.0, 1e4])
@pytest.mark.parametrize('elements', [1, 10_000])
def test_equals_torch_in_float64(
    size: float, elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(map_blocks, 'CPU_BLOCK_ELEMENTS', elements)
    pred, label = logits_and_labels(size)
    weight = torch.tensor([1.0, 2.0, 0.0, 3.0, 0.5])
    wide = pred.double().requires_grad_()
    expected = F.cross_entropy(wide, label, weight.double(), ignore_index=-1, reduction='none')
    (slope,) = torch.autograd.grad(expected.sum(), wide)
    leaf = pred.clone().requires_grad_()
    value = map_cross_entropy(leaf, label, weight)
    torch.testing.assert_close(value.double(), expected, **FLOAT)
    for _ in range(2):  # the second backward pass has no table that was made before
        (found,) = torch.autograd.grad(value.sum(), leaf, retain_graph=True)
        torch.testing.assert_close(found.double(), slope, **FLOAT)


def test_numbers_are_added_to_the_logits_of_the_classes() -> None:
    pred, label = logits_and_labels()
    shift = torch.tensor([0.0, -1.0, -2.0, 3.0, 50.0])
    expected = F.cross_entropy(
        pred + shift[:, None, None], label, ignore_index=-1, reduction='none'
    )
    torch.testing.assert_close(map_cross_entropy(pred, label, shift=shift), expected, **FLOAT)


def test_a_sure_and_right_pixel_costs_exactly_0_and_a_wrong_one_its_distance() -> None:
    pred = torch.tensor([[[1e4, -1e4, 30.0], [0.0, 0.0, 0.0]]]).requires_grad_()
    cost = map_cross_entropy(pred, torch.tensor([[0, 0, 0]]))
    assert cost[0, :2].tolist() == [0.0, 1e4]
    assert cost[0, 2].item() == pytest.approx(0, abs=1e-7)
    cost.sum().backward()
    assert pred.grad is not None
    assert pred.grad[0, :, 0].tolist() == [0, 0] and pred.grad[0, :, 1].tolist() == [-1, 1]


def test_any_negative_label_is_ignored_also_with_weights_of_classes() -> None:
    pred, label = logits_and_labels()
    weight = torch.linspace(1, 2, 5)
    for loss in (map_cross_entropy, partial(map_focal_loss, gamma=2.0)):
        expected = loss(pred, label, weight=weight)
        assert torch.equal(loss(pred, label.where(label >= 0, -100), weight=weight), expected)


@pytest.mark.parametrize('gamma', [0.0, 0.5, 2.0])
def test_focal_loss_equals_its_formula(gamma: float) -> None:
    pred, label = logits_and_labels()
    wide = pred.double().requires_grad_()
    log_p = wide.log_softmax(1).gather(1, label.clamp(min=0).unsqueeze(1)).squeeze(1)
    expected = -((1 - log_p.exp()) ** gamma) * log_p * (label >= 0)
    (slope,) = torch.autograd.grad(expected.sum(), wide)
    leaf = pred.clone().requires_grad_()
    value = map_focal_loss(leaf, label, gamma)
    (found,) = torch.autograd.grad(value.sum(), leaf)
    torch.testing.assert_close(value.double(), expected, **FLOAT)
    torch.testing.assert_close(found.double(), slope, **FLOAT)


def test_a_gradient_of_half_precision_is_that_of_float32_rounded() -> None:
    pred, label = logits_and_labels()
    half = pred.bfloat16().requires_grad_()
    wide = half.detach().float().requires_grad_()
    (found,) = torch.autograd.grad(map_cross_entropy(half, label).sum(), half)
    (slope,) = torch.autograd.grad(map_cross_entropy(wide, label).sum(), wide)
    assert torch.equal(found, slope.bfloat16())


def test_a_label_beyond_the_columns_is_named() -> None:
    with pytest.raises(ValueError, match='target has the label 255, but pred has 5 columns'):
        map_cross_entropy(torch.zeros(1, 5, 2), torch.tensor([[0, 255]]))
