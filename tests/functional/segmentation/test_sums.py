"""Sums over regions: the same in blocks of any size, and the memory that they take."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmdet_ext.catalog.memory import peak_bytes
from mmdet_ext.functional.segmentation import sums
from mmdet_ext.functional.segmentation.dice import dice_ce_loss, dice_loss
from mmdet_ext.functional.segmentation.regions import Regions
from tests._helpers.losses.gradients import seeded, value_and_gradient
from tests._helpers.tolerances import TOLERANCES


def maps(count: int, classes: int, *size: int) -> tuple[Tensor, Tensor]:
    pred = torch.randn(count, classes, *size, generator=seeded())
    label = torch.randint(0, max(2, classes), (count, *size), generator=seeded(1))
    label[0, :1] = 255
    return pred, label


@pytest.mark.parametrize('elements', [1, 40, 300, 1000], ids='blocks of {}'.format)
@pytest.mark.parametrize('classes', [1, 3])
def test_blocks_of_any_size_give_the_same(
    elements: int, classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From one pixel to several images: an image has 35 pixels of each class."""
    pred, label = maps(5, classes, 5, 7)
    pred = pred.double().requires_grad_()
    weight = torch.rand(label.shape, generator=seeded(2)).double()
    calls = [
        lambda: dice_ce_loss(pred, label),
        lambda: dice_ce_loss(pred, label, weight, regions=Regions('sigmoid')),
        lambda: dice_loss(pred, label, weight, regions=Regions(batch=True)),
        lambda: dice_loss(pred, pred.detach() > 0, regions=Regions('sigmoid', per_class=False)),
    ]
    whole = [value_and_gradient(call(), pred) for call in calls]
    monkeypatch.setattr(sums, 'CPU_BLOCK_ELEMENTS', elements)
    for call, expected in zip(calls, whole, strict=True):
        found = value_and_gradient(call(), pred)
        torch.testing.assert_close(found, expected, **TOLERANCES[torch.float64])


@pytest.mark.slow
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16], ids=str)
def test_the_gradient_is_the_only_table(dtype: torch.dtype) -> None:
    pred, label = maps(2, 20, 256, 256)
    leaf = pred.to(dtype).requires_grad_()
    table = leaf.numel() * leaf.element_size()
    blocks = 12 * 4 * sums.CPU_BLOCK_ELEMENTS
    for loss in (dice_loss, dice_ce_loss):
        peak = peak_bytes(lambda loss=loss: loss(leaf, label).sum().backward())
        assert table < peak < table + blocks
        leaf.grad = None


def test_the_loss_can_be_differentiated_twice_in_turn_but_has_no_second_derivative() -> None:
    pred, label = maps(2, 3, 4, 4)
    pred.requires_grad_()
    loss = dice_loss(pred, label).sum()
    first, second = (torch.autograd.grad(loss, pred, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)
    (slope,) = torch.autograd.grad(loss, pred, create_graph=True)
    with pytest.raises(RuntimeError, match='once_differentiable'):
        slope.sum().backward()


def test_autocast_does_not_lower_the_precision() -> None:
    pred, label = maps(2, 3, 64, 64)
    expected = dice_ce_loss(pred, label)
    with torch.autocast('cpu', torch.bfloat16):
        found = dice_ce_loss(pred, label)
    assert torch.equal(found, expected)
