"""Dice loss: the papers' formula, what takes part, and behaviour at the edges."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

from mmdet_ext.functional.segmentation.dice import dice_loss, dice_region_losses
from mmdet_ext.functional.segmentation.regions import Regions
from tests._helpers.losses.gradients import gradient, seeded
from tests._helpers.losses.slow_regions import slow_dice, slow_regions
from tests._helpers.tolerances import TOLERANCES

DOUBLE = TOLERANCES[torch.float64]
MASK = Regions('none', per_class=False)


def maps(classes: int, ignore: bool = False) -> tuple[Tensor, Tensor]:
    """Logits (4, C, 5, 7) in float64 and labels; the last image lacks all classes but 0."""
    generator = seeded()
    pred = 2 * torch.randn(4, classes, 5, 7, generator=generator, dtype=torch.float64)
    label = torch.randint(0, max(2, classes), (4, 5, 7), generator=generator)
    label[3] = 0
    if ignore:
        label[0, :2] = 255
        label[1, :, 3:] = -1
        label[2] = 255
    return pred.requires_grad_(), label


def check(found: Tensor, expected: Tensor, pred: Tensor) -> None:
    """Compare values, and gradients of their sum with unequal factors."""
    torch.testing.assert_close(found, expected, **DOUBLE)
    factors = torch.linspace(0.5, 1.5, found.numel(), dtype=found.dtype).reshape(found.shape)
    torch.testing.assert_close(
        gradient(found * factors, pred), gradient(expected * factors, pred), **DOUBLE
    )


@pytest.mark.parametrize('activation', ['softmax', 'sigmoid'])
@pytest.mark.parametrize('exponent', [1, 2])
@pytest.mark.parametrize('per_class', [False, True], ids=['pooled', 'per class'])
@pytest.mark.parametrize('batch', [False, True], ids=['', 'batch'])
def test_equals_the_formula_of_the_papers(
    activation: str, exponent: int, per_class: bool, batch: bool
) -> None:
    for classes, ignore, weighted, background in itertools.product(
        (1, 3), (False, True), (False, True), (False, True)
    ):
        pred, label = maps(classes, ignore)
        weight = torch.rand(label.shape, generator=seeded(1)).double() if weighted else None
        regions = Regions(activation, per_class, batch, background)  # type: ignore[arg-type]
        formula = partial(slow_dice, exponent=exponent, eps=0.3, smooth=0.2)
        check(
            dice_loss(pred, label, weight, exponent, 0.3, 0.2, regions),
            slow_regions(pred, label, weight, regions, formula),
            pred,
        )


@pytest.mark.parametrize('exponent', [1, 2])
def test_masks_of_any_shape_are_one_region_each(exponent: int) -> None:
    generator = seeded()
    mask = torch.rand(3, 4, 5, 6, generator=generator).double()
    logits = torch.randn(3, 4, 5, 6, generator=generator).double().requires_grad_()
    weight = torch.rand(3, 4, 5, 6, generator=generator).double()
    ones = torch.ones_like(weight)
    for used in (None, weight):
        rows = zip(logits.sigmoid(), mask, ones if used is None else used, strict=True)
        expected = torch.stack([slow_dice(p, t, w, exponent, 1e-3, 0.0) for p, t, w in rows])
        for shape in ((3, 4, 5, 6), (3, 20, 6), (3, 120)):
            found = dice_loss(
                logits.reshape(shape),
                mask.reshape(shape),
                None if used is None else used.reshape(shape),
                exponent,
                regions=Regions('sigmoid', per_class=False),
            )
            check(found, expected, logits)


def test_soft_targets_over_softmax_equal_labels_where_they_are_0_and_1() -> None:
    pred, label = maps(3)
    table = torch.nn.functional.one_hot(label, 3).movedim(-1, 1)
    for per_class in (False, True):
        regions = Regions('softmax', per_class)
        check(
            dice_loss(pred, table, regions=regions), dice_loss(pred, label, regions=regions), pred
        )


def test_ignored_pixels_have_no_part_in_value_and_gradient() -> None:
    pred, label = maps(3, ignore=True)
    other = torch.where((label < 0) | (label == 255), 7.0, 0.0).unsqueeze(1) + pred.detach()
    other.requires_grad_()
    for exponent in (1, 2):
        one, two = (dice_loss(x, label, exponent=exponent) for x in (pred, other))
        assert torch.equal(one, two)
        grad = gradient(one, pred)
        assert torch.equal(grad, gradient(two, other))
        ignored = ((label < 0) | (label == 255)).unsqueeze(1).expand_as(grad)
        assert not grad[ignored].any() and grad[~ignored].any()


def test_labels_to_ignore_are_those_that_are_named() -> None:
    pred, label = maps(3)
    named = dice_loss(pred, label, regions=Regions(ignore_index=1))
    check(named, dice_loss(pred, label.where(label != 1, -1)), pred)
    check(named, dice_loss(pred, label.where(label != 1, 255)), pred)


def test_images_of_ignored_pixels_have_the_loss_0() -> None:
    pred, label = maps(3)
    for exponent, regions in itertools.product(
        (1, 2), (Regions(), Regions(per_class=False), Regions(batch=True))
    ):
        loss = dice_loss(pred, torch.full_like(label, 255), exponent=exponent, regions=regions)
        assert not loss.any() and loss.requires_grad
        assert not gradient(loss, pred).any()
        without = dice_loss(pred, label, torch.zeros(label.shape), exponent, regions=regions)
        assert not without.any() and not gradient(without, pred).any()


def test_a_class_that_is_absent_and_not_predicted_costs_next_to_nothing_with_smoothing() -> None:
    logits = torch.tensor([20.0, -20.0]).reshape(1, 2, 1, 1).expand(1, 2, 8, 8)
    label = torch.zeros(1, 8, 8, dtype=torch.long)
    for options in ({'exponent': 1, 'eps': 1.0}, {'exponent': 2, 'eps': 0.0, 'smooth': 1.0}):
        assert dice_loss(logits, label, **options).max() < 1e-6  # type: ignore[arg-type]
    # The form of V-Net has no smoothing above: an empty mask costs 1, whatever is predicted.
    assert dice_loss(logits, label)[0, 1] == 1


def test_absent_classes_are_ignored_by_option() -> None:
    pred, label = maps(3)
    regions = Regions(ignore_absent=True)
    loss, counted = dice_region_losses(pred, label, regions=regions)
    assert counted.tolist() == [[True] * 3] * 3 + [[True, False, False]]
    everything = dice_loss(pred, label)
    torch.testing.assert_close(loss, everything.where(counted, 0.0), **DOUBLE)
    formula = partial(slow_dice, exponent=2, eps=1e-3, smooth=0.0)
    check(loss, slow_regions(pred, label, None, regions, formula), pred)


def test_a_class_that_is_present_and_missed_by_all_certainty_takes_part() -> None:
    """Its overlap is 0, as that of an absent class, but not its size."""
    pred = torch.tensor([1e4, 0.0]).reshape(1, 2, 1).expand(1, 2, 6)
    label = torch.tensor([[0, 0, 0, 0, 1, 1]])
    for exponent in (1, 2):
        found = dice_region_losses(
            pred, label, exponent=exponent, regions=Regions(ignore_absent=True)
        )
        assert found.counted.all() and found.loss[0, 1] > 0.999


def test_weights_of_classes_are_factors_per_class_and_weights_of_pixels_otherwise() -> None:
    pred, label = maps(3)
    weights = [0.5, 2.0, 0.0]
    factors = torch.tensor(weights).double()
    by_class = dice_loss(pred, label, regions=Regions(class_weight=weights))
    check(by_class, dice_loss(pred, label) * factors, pred)
    pooled = Regions(per_class=False, class_weight=weights)
    p = pred.softmax(1)
    t = torch.nn.functional.one_hot(label, 3).movedim(-1, 1).double()
    w = factors.reshape(1, 3, 1, 1).expand_as(p)
    rows = zip(p, t, w, strict=True)
    expected = torch.stack([slow_dice(*row, exponent=2, eps=1e-3, smooth=0.0) for row in rows])
    check(dice_loss(pred, label, regions=pooled), expected, pred)
    assert (
        dice_loss(pred, label, regions=Regions(class_weight=2.0)).tolist()
        == (2 * dice_loss(pred, label)).tolist()
    )


@pytest.mark.parametrize('dense', [False, True], ids=['labels', 'targets of each element'])
@pytest.mark.parametrize('per_class', [False, True], ids=['pooled', 'per class'])
@pytest.mark.parametrize('activation', ['softmax', 'sigmoid'])
def test_without_the_background_its_weight_and_its_channel_have_no_part(
    activation: str, per_class: bool, dense: bool
) -> None:
    pred, label = maps(3)
    table = torch.nn.functional.one_hot(label, 3).movedim(-1, 1)
    for weights in (None, [7.0, 2.0, 0.5]):
        regions = Regions(activation, per_class, False, False, class_weight=weights)  # type: ignore[arg-type]
        found = dice_loss(pred, table if dense else label, regions=regions)
        p = (pred.softmax(1) if activation == 'softmax' else pred.sigmoid())[:, 1:]
        own = None if weights is None else weights[1:]
        rest = Regions('none', per_class, class_weight=own)
        check(found, dice_loss(p, table[:, 1:], regions=rest), pred)


def test_labels_beyond_the_classes_are_in_no_class_with_sigmoid() -> None:
    pred, label = maps(3)
    label[0, :2] = 3
    table = torch.nn.functional.one_hot(label, 4)[..., :3].movedim(-1, 1)
    regions = Regions('sigmoid')
    check(dice_loss(pred, label, regions=regions), dice_loss(pred, table, regions=regions), pred)


def test_weights_of_images_equal_weights_of_their_pixels() -> None:
    pred, label = maps(3)
    weight = torch.tensor([0.5, 2.0, 0.0, 1.0]).double()
    pixels = weight.reshape(4, 1, 1).expand(4, 5, 7)
    for regions in (Regions(batch=True), Regions()):
        check(
            dice_loss(pred, label, weight, regions=regions),
            dice_loss(pred, label, pixels, regions=regions),
            pred,
        )


def test_one_channel_is_the_probability_of_the_label_1() -> None:
    label = torch.tensor([[[1, 1, 0, 0]]])
    right = torch.tensor([[[[20.0, 20.0, -20.0, -20.0]]]])
    for activation in ('sigmoid', 'softmax'):  # the softmax of one channel would be constant
        regions = Regions(activation)  # type: ignore[arg-type]
        assert dice_loss(right, label, eps=1e-6, regions=regions) < 1e-5
        assert dice_loss(-right, label, eps=1e-6, regions=regions) > 0.999


@pytest.mark.parametrize('exponent', [1, 2])
def test_the_loss_of_equal_masks_is_exactly_0(exponent: int) -> None:
    mask = torch.rand(40, 1000, generator=seeded()).round()
    assert mask.sum(1).min() > 0
    pred = mask.clone().requires_grad_()
    loss = dice_loss(pred, mask, exponent=exponent, eps=0.0, regions=MASK)
    assert not loss.any()
    assert torch.isfinite(gradient(loss, pred)).all()


@pytest.mark.parametrize('exponent', [1, 2])
def test_no_smoothing_still_gives_finite_gradients(exponent: int) -> None:
    for dtype in (torch.float32, torch.float16):
        pred = torch.tensor([[0.0, 0.0], [1e-4, 0.0], [1.0, 1e-4]], dtype=dtype).requires_grad_()
        mask = torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
        loss = dice_loss(pred, mask, exponent=exponent, eps=0.0, regions=MASK)
        grad = gradient(loss, pred)
        assert torch.isfinite(loss).all() and torch.isfinite(grad).all()


def test_half_precision_does_not_overflow_at_the_size_of_an_image() -> None:
    """The sum of 131,072 probabilities is beyond float16."""
    pred = torch.zeros(1, 2, 256, 512, dtype=torch.float16).requires_grad_()
    label = (torch.arange(256 * 512) % 2).reshape(1, 256, 512)
    loss = dice_loss(pred, label, exponent=1)
    torch.testing.assert_close(loss, torch.full((1, 2), 0.5))
    assert pred.dtype == gradient(loss, pred).dtype == torch.float16


@pytest.mark.parametrize('layout', ['channels last', 'transposed', 'expanded'])
def test_the_layout_in_memory_changes_nothing(layout: str) -> None:
    pred, label = maps(3)
    plain = pred.detach()
    other = {
        'channels last': plain.contiguous(memory_format=torch.channels_last),
        'transposed': plain.transpose(2, 3).contiguous().transpose(2, 3),
        'expanded': plain[:1].expand(4, 3, 5, 7),
    }[layout]
    plain = other.contiguous().requires_grad_()
    other = other.requires_grad_()
    one, two = dice_loss(plain, label), dice_loss(other, label)
    torch.testing.assert_close(one, two, **DOUBLE)
    torch.testing.assert_close(gradient(one, plain), gradient(two, other), **DOUBLE)


def test_labels_may_be_bytes_and_masks_booleans() -> None:
    pred, label = maps(3, ignore=True)
    expected = dice_loss(pred, label)
    check(dice_loss(pred, (label % 256).to(torch.uint8)), expected, pred)
    mask = label[:, None].expand_as(pred) == 1
    regions = Regions('sigmoid', per_class=False)
    check(
        dice_loss(pred, mask, regions=regions),
        dice_loss(pred, mask.double(), regions=regions),
        pred,
    )


def test_without_images_or_pixels_there_is_a_zero_with_a_graph() -> None:
    for shape in ((0, 3, 4, 4), (2, 3, 0, 4), (0, 3, 0)):
        pred = torch.zeros(shape, requires_grad=True)
        label = torch.zeros(shape[:1] + shape[2:], dtype=torch.long)
        for regions in (Regions(), Regions(per_class=False), Regions(batch=True)):
            total = dice_loss(pred, label, regions=regions).sum()
            assert total == 0
            total.backward()


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(target=torch.zeros(2, 4, 3).long()), r'target must be labels \(2, 4, 4\)'),
        (dict(target=torch.full((2, 4, 4), 3)), 'target has the label 3, but pred has 3 columns'),
        (dict(weight=torch.ones(2, 3)), r'weight of shape \(2, 3\) does not fit pred'),
        (dict(exponent=3), 'exponent must be 1 or 2, got 3'),
        (dict(eps=-1.0), 'eps must be at least 0 and finite, got -1.0'),
        (dict(smooth=float('nan')), 'smooth must be at least 0 and finite, got nan'),
        (dict(regions=Regions(class_weight=[1.0, 2.0])), 'class_weight must be one number, or one'),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    usual: dict[str, object] = {
        'pred': torch.zeros(2, 3, 4, 4),
        'target': torch.zeros(2, 4, 4).long(),
    }
    with pytest.raises(ValueError, match=message):
        dice_loss(**{**usual, **arguments})  # type: ignore[arg-type]


def test_a_mask_of_other_numbers_than_0_and_1_is_refused_unless_they_are_ignored() -> None:
    mask, pred = torch.tensor([[0, 255, 1]]), torch.tensor([[0.5, 7.0, 2.0]])
    regions = Regions('sigmoid', per_class=False, ignore_index=-1)
    for index in (-1, 254):
        with pytest.raises(ValueError, match='target must be 0 or 1 where there is one channel'):
            dice_loss(pred, mask, regions=replace(regions, ignore_index=index))
    # 255 is ignored by default: in a mask of 0 and 255 the whole object would be.
    found = dice_loss(pred, mask, regions=replace(regions, ignore_index=255))
    torch.testing.assert_close(found, dice_loss(pred[:, ::2], mask[:, ::2], regions=regions))
    with pytest.raises(ValueError, match="activation must be one of .*, got 'relu'"):
        Regions('relu')  # type: ignore[arg-type]
