"""Dice loss and cross entropy from one softmax: equal to the two losses apart."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmdet_ext.functional.segmentation.dice import dice_ce_loss, dice_loss
from mmdet_ext.functional.segmentation.regions import Regions
from tests._helpers.losses.gradients import gradient, seeded
from tests._helpers.tolerances import TOLERANCES

DOUBLE = TOLERANCES[torch.float64]
SIGMOID = Regions('sigmoid')


def maps(classes: int = 3) -> tuple[Tensor, Tensor]:
    """Logits (3, C, 5, 7) in float64, and labels of which some are ignored."""
    generator = seeded()
    pred = 2 * torch.randn(3, classes, 5, 7, generator=generator, dtype=torch.float64)
    label = torch.randint(0, max(2, classes), (3, 5, 7), generator=generator)
    label[0, :2] = 255
    label[1, 0, 0] = -1
    return pred.requires_grad_(), label


def check(found: Tensor, expected: Tensor, pred: Tensor) -> None:
    """Compare values, and gradients of their sum with unequal factors."""
    torch.testing.assert_close(found, expected, **DOUBLE)
    factors = torch.linspace(0.5, 1.5, len(found), dtype=found.dtype)
    torch.testing.assert_close(
        gradient(found * factors, pred), gradient(expected * factors, pred), **DOUBLE
    )


def cross_entropy(pred: Tensor, label: Tensor, weight: Tensor | None, classes: Tensor) -> Tensor:
    """Torch's cross entropy per pixel."""
    target = label.where(label >= 0, 255)
    loss = F.cross_entropy(pred, target, classes, reduction='none', ignore_index=255)
    return loss if weight is None else loss * weight


def binary_cross_entropy(
    pred: Tensor, label: Tensor, weight: Tensor | None, positive: Tensor
) -> Tensor:
    """Torch's binary cross entropy per pixel, a mean over the classes."""
    kept = (label >= 0) & (label != 255)
    own = torch.arange(pred.shape[1]) if pred.shape[1] > 1 else torch.ones(1)
    truth = (label[:, None] == own.reshape(1, -1, 1, 1)).double()
    factors = positive.reshape(-1, 1, 1)
    each = F.binary_cross_entropy_with_logits(pred, truth, reduction='none', pos_weight=factors)
    loss = each.mean(1) * kept
    return loss if weight is None else loss * weight


@pytest.mark.parametrize('avg_non_ignore', [False, True])
@pytest.mark.parametrize('weighted', [False, True])
def test_equals_both_losses_apart(avg_non_ignore: bool, weighted: bool) -> None:
    for classes, activation in ((3, 'softmax'), (3, 'sigmoid'), (1, 'sigmoid'), (1, 'softmax')):
        pred, label = maps(classes)
        weight = torch.rand(label.shape, generator=seeded(1)).double() if weighted else None
        factors = torch.tensor([0.5, 2.0, 1.0])[:classes].double()
        softmax = classes == 3 and activation == 'softmax'
        entropy = (cross_entropy if softmax else binary_cross_entropy)(pred, label, weight, factors)
        counted = ((label >= 0) & (label != 255)).sum((1, 2)) if avg_non_ignore else 35
        for per_class, background in itertools.product((False, True), (False, True)):
            regions = Regions(activation, per_class, include_background=background)  # type: ignore[arg-type]
            dice = dice_loss(pred, label, weight, 1, 0.3, 0.1, regions).reshape(3, -1).mean(1)
            expected = 0.7 * dice + 0.4 * entropy.sum((1, 2)) / counted
            found = dice_ce_loss(
                pred,
                label,
                weight,
                dice_weight=0.7,
                ce_weight=0.4,
                exponent=1,
                eps=0.3,
                smooth=0.1,
                class_weight=factors,
                avg_non_ignore=avg_non_ignore,
                regions=regions,
            )
            check(found, expected, pred)


@pytest.mark.parametrize('activation', ['softmax', 'sigmoid'])
@pytest.mark.parametrize('per_class', [False, True], ids=['pooled', 'per class'])
@pytest.mark.parametrize('avg_non_ignore', [False, True])
@pytest.mark.parametrize('weighted', [None, 'pixels', 'elements'])
def test_targets_of_each_element_equal_both_losses_apart(
    activation: str, per_class: bool, avg_non_ignore: bool, weighted: str | None
) -> None:
    """Of some pixels one element is ignored, of others all; the targets need not add up to 1."""
    pred, _ = maps()
    table = torch.rand(pred.shape, generator=seeded(1)).double()
    table[:, 0, :2] = -1
    table[0, :, 3] = -1
    shape = {None: (3, 1, 5, 7), 'pixels': (3, 1, 5, 7), 'elements': tuple(pred.shape)}[weighted]
    given = torch.rand(shape, generator=seeded(2)).double()
    factors = torch.tensor([0.5, 2.0, 1.0]).double().reshape(1, 3, 1, 1)
    kept = table >= 0
    weight = (torch.ones_like(given) if weighted is None else given) * kept
    truth = table * kept
    if activation == 'softmax':
        entropy = -(weight * truth * factors * pred.log_softmax(1)).sum((1, 2, 3))
        elements = kept.any(1).sum((1, 2)) if avg_non_ignore else 35
    else:
        log_p, log_rest = F.logsigmoid(pred), F.logsigmoid(-pred)
        each = truth * factors * log_p + (1 - truth) * log_rest
        entropy = -(weight * each).sum((1, 2, 3))
        elements = kept.sum((1, 2, 3)) if avg_non_ignore else 35 * 3
    regions = Regions(activation, per_class)  # type: ignore[arg-type]
    call = {None: None, 'pixels': given.squeeze(1), 'elements': given}[weighted]
    dice = dice_loss(pred, table, call, 1, regions=regions).reshape(3, -1).mean(1)
    found = dice_ce_loss(
        pred,
        table,
        call,
        class_weight=[0.5, 2.0, 1.0],
        avg_non_ignore=avg_non_ignore,
        regions=regions,
    )
    check(found, dice + entropy / elements, pred)


def test_a_weight_of_0_leaves_the_other_loss() -> None:
    pred, label = maps()
    dice = dice_loss(pred, label, exponent=1).mean(1)
    entropy = cross_entropy(pred, label, None, torch.ones(3).double()).mean((1, 2))
    check(dice_ce_loss(pred, label, ce_weight=0.0), dice, pred)
    check(dice_ce_loss(pred, label, dice_weight=0.0), entropy, pred)


def test_only_the_classes_that_take_part_are_in_the_mean() -> None:
    pred, label = maps()
    label = label.where(label != 2, 0)
    regions = Regions(ignore_absent=True)
    dice = dice_loss(pred, label, exponent=1)[:, :2].mean(1)
    check(dice_ce_loss(pred, label, ce_weight=0.0, regions=regions), dice, pred)


def test_the_label_to_ignore_is_that_of_the_regions() -> None:
    pred, label = maps()
    for regions in (Regions(ignore_index=1), Regions('sigmoid', ignore_index=1)):
        plain = replace(regions, ignore_index=255)
        found = dice_ce_loss(pred, label.where(label != 255, 1), regions=regions)
        expected = dice_ce_loss(pred, label.where(label != 1, 255), regions=plain)
        check(found, expected, pred)


def test_the_dice_of_a_batch_is_added_to_each_image() -> None:
    pred, label = maps()
    regions = Regions(batch=True)
    dice = dice_loss(pred, label, exponent=1, regions=regions).mean(1)
    entropy = dice_ce_loss(pred, label, dice_weight=0.0)
    check(dice_ce_loss(pred, label, regions=regions), dice + entropy, pred)
    weight = torch.tensor([1.0, 0.0, 0.5]).double()
    dice = dice_loss(pred, label, weight, exponent=1, regions=regions).mean(1)
    expected = weight * (dice + entropy)
    check(dice_ce_loss(pred, label, weight, regions=regions), expected, pred)


def test_images_of_ignored_pixels_have_the_loss_0() -> None:
    pred, label = maps()
    label[1] = 255
    for regions in (Regions(), SIGMOID):
        for avg_non_ignore in (False, True):
            loss = dice_ce_loss(pred, label, avg_non_ignore=avg_non_ignore, regions=regions)
            grad = gradient(loss, pred)
            assert loss[1] == 0 and not grad[1].any()
            assert (loss[[0, 2]] > 0).all() and torch.isfinite(grad).all()


def test_the_cross_entropy_of_a_certain_error_is_its_logit() -> None:
    """From the logarithm of the softmax, not of probabilities, which are 0 there."""
    pred = torch.tensor([1e4, 0.0]).reshape(1, 2, 1).requires_grad_()
    loss = dice_ce_loss(pred, torch.tensor([[1]]), dice_weight=0.0)
    assert loss.item() == 1e4
    assert gradient(loss, pred).flatten().tolist() == [1.0, -1.0]


def test_wrong_arguments_are_named() -> None:
    pred, label = torch.zeros(2, 3, 4), torch.zeros(2, 4).long()
    with pytest.raises(ValueError, match="activation must be 'softmax' or 'sigmoid'"):
        dice_ce_loss(pred, label, regions=Regions('none'))
    with pytest.raises(ValueError, match='ce_weight must be at least 0 and finite, got -1'):
        dice_ce_loss(pred, label, ce_weight=-1.0)
    with pytest.raises(ValueError, match='dice_weight must be at least 0 and finite, got inf'):
        dice_ce_loss(pred, label, dice_weight=float('inf'))
    with pytest.raises(ValueError, match=r'class_weight must be one number, or one per class: 3'):
        dice_ce_loss(pred, label, class_weight=[1.0, 2.0])
