"""Registered losses of regions: equal to mmdet's and mmseg's, and where those are wrong."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

from tests._helpers.losses.gradients import seeded
from tests._helpers.tolerances import TOLERANCES

pytest.importorskip('mmseg', reason='the host is absent')

CLOSE = TOLERANCES[torch.float32]
DICE_FORMS = pytest.mark.parametrize(
    'options', [{}, {'naive_dice': True}, {'naive_dice': True, 'eps': 1.0}], ids=str
)


def build(scope: str, name: str = 'DiceLoss', **options: Any) -> nn.Module:
    return MODELS.build({'type': f'{scope}.{name}', **options})


def maps(classes: int = 4, ignore: bool = False) -> tuple[Tensor, Tensor]:
    """Logits (3, C, 6, 8), and labels, of which rows are ignored by option."""
    pred = 2 * torch.randn(3, classes, 6, 8, generator=seeded())
    label = torch.randint(0, classes, (3, 6, 8), generator=seeded(1))
    if ignore:
        label[:, :2] = 255
    return pred, label


def graded(loss: nn.Module, pred: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    """Value and gradient of a call."""
    leaf = pred.clone().requires_grad_()
    value = loss(leaf, *args, **kwargs)
    value.sum().backward()
    return value.detach(), leaf.grad


def check_equal(host: str, name: str, options: dict[str, Any], *call: Any, **kwargs: Any) -> None:
    """Compare value and gradient of one call with those of a host's loss."""
    found, expected = (
        graded(build(scope, name, **options), *call, **kwargs) for scope in ('mmdet_ext', host)
    )
    torch.testing.assert_close(found, expected, **CLOSE)


@DICE_FORMS
@pytest.mark.parametrize('activate', [True, False])
@pytest.mark.parametrize('reduction', ['none', 'mean', 'sum'])
def test_masks_equal_mmdet(options: dict[str, Any], activate: bool, reduction: str) -> None:
    options = {**options, 'activate': activate, 'loss_weight': 3.0}
    for shape in ((5, 30), (5, 6, 7), (5, 2, 3, 4)):
        pred = torch.randn(shape, generator=seeded())
        pred = pred if activate else pred.sigmoid()
        mask = torch.randint(0, 2, shape, generator=seeded(1))
        for weight in (None, torch.linspace(0, 1, 5)):
            call = {'weight': weight, 'reduction_override': reduction}
            check_equal('mmdet', 'DiceLoss', options, pred, mask, **call)
            if reduction != 'sum':
                check_equal('mmdet', 'DiceLoss', options, pred, mask, **call, avg_factor=2)


def test_both_orders_of_arguments_are_taken() -> None:
    """The loss of mmdet has the reduction before avg_factor, that of mmseg after it."""
    pred, mask = torch.randn(4, 9, generator=seeded()), torch.ones(4, 9)
    weight = torch.linspace(0, 1, 4)
    check_equal('mmdet', 'DiceLoss', {}, pred, mask, weight, 'mean', 3.0)
    check_equal('mmdet', 'DiceLoss', {}, pred, mask, weight, 'none')
    ours = build('mmdet_ext')
    by_name = ours(pred, mask, weight, avg_factor=3.0, reduction_override='mean')
    assert ours(pred, mask, weight, 3.0, 'mean') == by_name == ours(pred, mask, weight, 'mean', 3.0)


@DICE_FORMS
@pytest.mark.parametrize('use_sigmoid', [True, False])
@pytest.mark.parametrize('reduction', ['none', 'mean', 'sum'])
def test_label_maps_equal_mmseg(options: dict[str, Any], use_sigmoid: bool, reduction: str) -> None:
    options = {**options, 'use_sigmoid': use_sigmoid, 'reduction': reduction}
    pred, label = maps()
    check_equal('mmseg', 'DiceLoss', options, pred, label, ignore_index=255)
    check_equal('mmseg', 'DiceLoss', options, pred, label, weight=torch.linspace(0, 1, 3))
    table = torch.rand(pred.shape, generator=seeded(2))
    check_equal('mmseg', 'DiceLoss', options, pred, table)


@pytest.mark.parametrize(
    'options',
    [{}, {'alpha': 0.6, 'beta': 0.4, 'smooth': 0.1}, {'class_weight': [1.0, 2.0, 0.5, 0.0]}],
    ids=str,
)
def test_tversky_equals_mmseg(options: dict[str, Any]) -> None:
    for ignore in (False, True):
        check_equal('mmseg', 'TverskyLoss', options, *maps(ignore=ignore), ignore_index=255)


def test_mmseg_counts_ignored_pixels_as_background() -> None:
    pred, label = maps(ignore=True)
    for use_sigmoid in (True, False):
        theirs, ours = (build(s, use_sigmoid=use_sigmoid) for s in ('mmseg', 'mmdet_ext'))
        other = pred.clone()
        other[:, 0, :2] += 3
        assert theirs(pred, label, ignore_index=255) != theirs(other, label, ignore_index=255)
        assert ours(pred, label, ignore_index=255) == ours(other, label, ignore_index=255)
        assert graded(theirs, pred, label, ignore_index=255)[1][:, :, :2].all()
        assert not graded(ours, pred, label, ignore_index=255)[1][:, :, :2].any()
        # Without the ignored rows both agree.
        rest = pred[:, :, 2:], label[:, 2:]
        torch.testing.assert_close(ours(pred, label), theirs(*rest), **CLOSE)


def test_mmseg_trains_the_opposite_of_a_binary_mask() -> None:
    """One channel is the probability of the label 1, as its head predicts and its CE learns."""
    label = torch.zeros(1, 8, 8, dtype=torch.long)
    label[:, 2:6, 2:6] = 1
    right = torch.where(label == 1, 8.0, -8.0).unsqueeze(1)
    entropy = build('mmseg', 'CrossEntropyLoss', use_sigmoid=True)
    assert entropy(right, label) < 0.01 < 7 < entropy(-right, label)
    for naive_dice in (False, True):
        theirs, ours = (build(s, naive_dice=naive_dice) for s in ('mmseg', 'mmdet_ext'))
        assert theirs(-right, label) < 0.01 < 0.9 < theirs(right, label)
        assert ours(right, label) < 0.01 < 0.9 < ours(-right, label)
        # Both gradients point in opposite directions in every pixel.
        signs = [graded(loss, 0 * right, label)[1].sign() for loss in (theirs, ours)]
        assert torch.equal(signs[0], -signs[1]) and signs[0].all()


def test_mmsegs_tversky_of_one_channel_trains_nothing() -> None:
    pred, label = maps(classes=1)
    label[:, 2:4] = 1
    value, gradient = graded(build('mmseg', 'TverskyLoss'), pred, label)
    assert not gradient.any()
    assert graded(build('mmdet_ext', 'TverskyLoss'), pred, label)[1].all()


def test_mmseg_refuses_weights_of_pixels_or_leaves_them_out() -> None:
    pred, label = maps()
    weight = torch.zeros(label.shape)
    weight[:, 2:] = 1
    rest = pred[:, :, 2:], label[:, 2:]
    with pytest.raises(AssertionError):
        build('mmseg')(pred, label, weight=weight)
    theirs = build('mmseg', 'TverskyLoss')
    assert theirs(pred, label, weight=weight) == theirs(pred, label)
    for name in ('DiceLoss', 'TverskyLoss'):
        ours = build('mmdet_ext', name)
        torch.testing.assert_close(ours(pred, label, weight=weight), ours(*rest), **CLOSE)


def test_mmseg_uses_another_ignore_index_than_that_of_the_head() -> None:
    """A head with ignore_index=0 gives it in the call."""
    pred, label = maps()
    for name in ('DiceLoss', 'TverskyLoss'):
        theirs, ours = (build(s, name) for s in ('mmseg', 'mmdet_ext'))
        assert theirs(pred, label, ignore_index=0) == theirs(pred, label)
        expected = ours(pred, label.where(label > 0, 255))
        assert ours(pred, label, ignore_index=0) == expected
        assert build('mmdet_ext', name, ignore_index=0)(pred, label) == expected
    # Given to mmseg's loss itself, it drops the channel of that number, and keeps its pixels.
    dropped = build('mmseg', use_sigmoid=True, ignore_index=0)(pred, label)
    torch.testing.assert_close(dropped, build('mmseg')(pred[:, 1:], label - 1 + 5 * (label == 0)))


def test_images_without_a_pixel_that_counts() -> None:
    pred, label = maps()
    label[:] = 255
    for options in ({}, {'use_sigmoid': False}, {'naive_dice': True}):
        value, _ = graded(build('mmseg', **options), pred, label)
        assert value > 0.99
        value, gradient = graded(build('mmdet_ext', **options), pred, label)
        assert value == 0 and not gradient.any()


def test_without_images_the_hosts_give_nan_or_raise() -> None:
    pred, label = maps()
    none, mask = torch.zeros(0, 5), torch.zeros(0, 5)
    assert build('mmseg')(pred[:0], label[:0]).isnan() and build('mmdet')(none, mask).isnan()
    with pytest.raises(RuntimeError):
        build('mmseg', 'TverskyLoss')(pred[:0], label[:0])
    assert build('mmdet_ext')(none, mask) == 0
    for name in ('DiceLoss', 'DiceCELoss', 'TverskyLoss'):
        assert build('mmdet_ext', name)(pred[:0], label[:0]) == 0


def test_half_precision_of_the_hosts_overflows() -> None:
    """The sum of 100,000 probabilities is beyond float16."""
    mask = torch.ones(1, 100_000)
    logits = torch.full((1, 100_000), 5.0)
    theirs, ours = (build(scope, naive_dice=True) for scope in ('mmdet', 'mmdet_ext'))
    expected = theirs(logits, mask)
    assert expected < 0.01
    torch.testing.assert_close(ours(logits.half(), mask.half()), expected, **CLOSE)
    assert theirs(logits.half(), mask.half()) == 1


def test_absent_classes_are_left_out_of_a_mean() -> None:
    pred, label = maps()
    label[:2] %= 3  # the first two images lack class 3
    label[2] = 0
    each = build('mmdet_ext', per_class=True, reduction='none')(pred, label)
    mean = build('mmdet_ext', per_class=True, ignore_absent=True)(pred, label)
    present = torch.cat([each[:2, :3].flatten(), each[2, :1]])
    torch.testing.assert_close(mean, present.mean(), **CLOSE)
    sums = build('mmdet_ext', per_class=True, ignore_absent=True, reduction='sum')(pred, label)
    torch.testing.assert_close(sums, present.sum(), **CLOSE)
    total = build('mmdet_ext', per_class=True, ignore_absent=True)(pred, label, avg_factor=2)
    torch.testing.assert_close(total, present.sum() / 2, **CLOSE)


def test_the_mean_of_dice_ce_is_over_images_also_where_classes_are_absent() -> None:
    pred, label = maps()
    label[0] = 255  # costs 0, and is an image of the mean
    label[1] %= 3
    each = build('mmdet_ext', 'DiceCELoss', ignore_absent=True, reduction='none')(pred, label)
    mean = build('mmdet_ext', 'DiceCELoss', ignore_absent=True)(pred, label)
    assert each[0] == 0
    torch.testing.assert_close(mean, each.sum() / 3, **CLOSE)


def test_dice_ce_is_the_sum_of_both_losses() -> None:
    pred, label = maps(ignore=True)
    entropy = build('mmseg', 'CrossEntropyLoss')
    for options in ({}, {'batch': True}, {'naive_dice': False, 'eps': 0.1}, {'per_class': False}):
        dice = build(
            'mmdet_ext', **{'per_class': True, 'naive_dice': True, 'use_sigmoid': False, **options}
        )
        both = build('mmdet_ext', 'DiceCELoss', dice_weight=0.5, **options)
        found = graded(both, pred, label, ignore_index=255)
        parts = [graded(loss, pred, label, ignore_index=255) for loss in (dice, entropy)]
        expected = tuple(0.5 * d + e for d, e in zip(*parts, strict=True))
        torch.testing.assert_close(found, expected, **CLOSE)


def test_names_and_options_of_the_losses() -> None:
    names = {
        name: build('mmdet_ext', name).loss_name
        for name in ('DiceLoss', 'DiceCELoss', 'TverskyLoss')
    }
    assert names == {
        'DiceLoss': 'loss_dice',
        'DiceCELoss': 'loss_dice_ce',
        'TverskyLoss': 'loss_tversky',
    }
    assert build('mmdet_ext', loss_name='loss_overlap').loss_name == 'loss_overlap'
    with pytest.raises(ValueError, match='eps must be at least 0'):
        build('mmdet_ext', eps=-1)
    with pytest.raises(ValueError, match='class_weight must be numbers from 0, got -1'):
        build('mmdet_ext', class_weight=[1, -1])
    with pytest.raises(ValueError, match='gamma must be at least 1'):
        build('mmdet_ext', 'TverskyLoss', gamma=0.5)
    with pytest.raises(ValueError, match='ce_weight must be at least 0'):
        build('mmdet_ext', 'DiceCELoss', ce_weight=-1)


def test_weights_of_images_weigh_the_losses_and_within_a_batch_the_sums() -> None:
    pred, label = maps()
    weight = torch.tensor([0.0, 2.0, 0.5])
    each = build('mmdet_ext', per_class=True, reduction='none')(pred, label)
    mean = build('mmdet_ext', per_class=True)(pred, label, weight)
    torch.testing.assert_close(mean, (each * weight[:, None]).sum() / 12, **CLOSE)
    batch = build('mmdet_ext', per_class=True, batch=True)
    pixels = weight.reshape(3, 1, 1).expand(label.shape)
    assert batch(pred, label, weight) == batch(pred, label, pixels)
    with pytest.raises(ValueError, match=r'weight of shape \(6,\) does not fit'):
        batch(pred, label, torch.ones(6))
