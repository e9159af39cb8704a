"""Registered cross entropy compared with mmdet's, in the forms in which heads call it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor, nn

from mmdet_ext.losses.cross_entropy import CrossEntropyLoss

GENERATOR = torch.Generator().manual_seed(0)
WEIGHTS = [0.5, 1.0, 2.0, 4.0]


def both(**options: object) -> tuple[nn.Module, nn.Module]:
    """Build our loss and mmdet's, with the same options."""
    ours, mmdet = (
        MODELS.build({'type': f'{scope}.CrossEntropyLoss', **options})
        for scope in ('mmdet_ext', 'mmdet')
    )
    return ours, mmdet


def check_equal(options: dict[str, Any], pred: Tensor, *args: Any, **kwargs: Any) -> None:
    """Compare value and gradient with mmdet's."""
    results = []
    for loss in both(**options):
        leaf = pred.clone().requires_grad_()
        value = loss(leaf, *args, **kwargs)
        value.sum().backward()
        results.append((value.detach().reshape(-1), leaf.grad))
    torch.testing.assert_close(*results)


def logits(*shape: int) -> Tensor:
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize('reduction', ['none', 'mean', 'sum'])
@pytest.mark.parametrize('class_weight', [None, WEIGHTS])
@pytest.mark.parametrize('use_sigmoid', [False, True])
def test_labels_of_box_heads_equal_mmdet(
    use_sigmoid: bool, class_weight: list[float] | None, reduction: str
) -> None:
    options = {'use_sigmoid': use_sigmoid, 'class_weight': class_weight, 'loss_weight': 2.0}
    pred, label = logits(9, 4), torch.arange(9) % (5 if use_sigmoid else 4)
    weight = torch.linspace(0, 2, 9)
    check_equal(options, pred, label, reduction_override=reduction)
    check_equal(options, pred, label, weight, reduction_override=reduction)
    if reduction != 'sum':
        check_equal(options, pred, label, weight, avg_factor=3.0, reduction_override=reduction)


@pytest.mark.parametrize('avg_non_ignore', [False, True])
@pytest.mark.parametrize('use_sigmoid', [False, True])
def test_means_without_ignored_labels_equal_mmdet(use_sigmoid: bool, avg_non_ignore: bool) -> None:
    options = {'use_sigmoid': use_sigmoid, 'avg_non_ignore': avg_non_ignore}
    pred, label = logits(9, 4), torch.tensor([0, 1, 255, 3, 255, 0, 1, 2, 3])
    for own, override in ((255, None), (None, 255), (1, 255)):
        check_equal({**options, 'ignore_index': own}, pred, label, ignore_index=override)
    check_equal({**options, 'ignore_index': 255}, pred, torch.full((9,), 255))
    # An avg_factor from the head has precedence.
    check_equal({**options, 'ignore_index': 255}, pred, label, avg_factor=4.0)
    ours, _ = both(**options, ignore_index=255)
    rows = F.cross_entropy(pred, label, ignore_index=255, reduction='none')
    if not use_sigmoid:
        assert ours(pred, label).item() == pytest.approx(
            (rows.sum() / (7 if avg_non_ignore else 9)).item()
        )


def test_one_column_of_a_proposal_head_equals_mmdet() -> None:
    """Use label 0 for the object and 1 for background."""
    label, weight = torch.tensor([0, 1, 1, 0]), torch.tensor([1.0, 1.0, 0.0, 1.0])
    check_equal({'use_sigmoid': True}, logits(4, 1), label, weight, avg_factor=3)


def test_targets_of_elements_from_centerness_and_yolo_equal_mmdet() -> None:
    options = {'use_sigmoid': True}
    check_equal(options, logits(6), torch.rand(6, generator=GENERATOR), avg_factor=2.5)
    truth = torch.rand(2, 6, 4, generator=GENERATOR).round()
    mask = torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0, 1.0]).reshape(1, 6, 1).repeat(2, 1, 1)
    check_equal(options, logits(2, 6, 4), truth, weight=mask, reduction_override='sum')
    check_equal({**options, 'class_weight': WEIGHTS}, logits(2, 6, 4), truth)
    check_equal({**options, 'reduction': 'sum'}, logits(6, 1), truth[0, :, :1])
    # A single class weight also serves targets without classes.
    check_equal({**options, 'class_weight': [2.0]}, logits(6), truth[0, :, 0])


def test_maps_of_segmentation_heads_equal_mmdet() -> None:
    label = torch.arange(40).reshape(2, 4, 5) % 4
    label[:, 0] = 255
    check_equal({'ignore_index': 255}, logits(2, 4, 4, 5), label)
    check_equal({'ignore_index': 255, 'avg_non_ignore': True}, logits(2, 4, 4, 5), label)


def test_masks_of_mask_heads_equal_mmdet() -> None:
    pred, label = logits(3, 4, 2, 2), torch.tensor([1, 3, 0])
    truth = torch.rand(3, 2, 2, generator=GENERATOR).round()
    check_equal({'use_mask': True}, pred, truth, label)
    check_equal({'use_mask': True}, pred[:, :1], truth, torch.zeros_like(label))


def test_masks_weigh_by_their_class_where_mmdet_weighs_image_columns() -> None:
    ours, mmdet = both(use_mask=True, class_weight=[2.0, 1.0])
    plain, _ = both(use_mask=True)
    pred, truth, label = logits(3, 2, 2, 2), torch.ones(3, 2, 2), torch.tensor([0, 1, 1])
    each = plain(pred, truth, label, reduction_override='none')
    mean = (each * torch.tensor([2.0, 1.0, 1.0])[:, None, None]).mean()
    torch.testing.assert_close(ours(pred, truth, label), mean)
    columns = (each * torch.tensor([2.0, 1.0])).mean()
    torch.testing.assert_close(mmdet(pred, truth, label)[0], columns)
    # With a pair as the label, the weight is a weight.
    torch.testing.assert_close(
        plain(pred, (truth, label), torch.tensor([2.0, 1.0, 1.0])), ours(pred, truth, label)
    )
    with pytest.raises(ValueError, match='the class of each mask'):
        plain(pred, truth)


def test_negative_labels_are_ignored_where_mmdet_raises() -> None:
    ours, mmdet = both(avg_non_ignore=True)
    pred, label = logits(3, 4), torch.tensor([2, -1, -100])
    assert ours(pred, label, reduction_override='none')[1:].tolist() == [0.0, 0.0]
    torch.testing.assert_close(ours(pred, label), ours(pred[:1], label[:1]))
    with pytest.raises(IndexError, match='out of bounds'):
        mmdet(pred, label)


def test_means_of_masks_distributions_and_elements_skip_ignored_ones() -> None:
    pred, truth = logits(2, 4), torch.tensor([[1.0, 0.0, -1.0, -1.0], [0.0, 0.0, 1.0, -1.0]])
    ours, _ = both(use_sigmoid=True, avg_non_ignore=True)
    each = ours(pred, truth, reduction_override='none')
    torch.testing.assert_close(ours(pred, truth), each.sum() / 5)
    ours, _ = both(avg_non_ignore=True)
    each = ours(pred, pred.softmax(1), reduction_override='none')
    torch.testing.assert_close(ours(pred, pred.softmax(1)), each.mean())
    ours, _ = both(use_mask=True, avg_non_ignore=True)
    maps = truth.reshape(2, 2, 2), torch.tensor([0, 1])
    each = ours(logits(2, 3, 2, 2), maps, reduction_override='none')
    torch.testing.assert_close(ours(logits(2, 3, 2, 2), maps), each.sum() / 5)


def test_masks_of_negative_classes_are_ignored_and_not_counted() -> None:
    pred, truth, label = logits(3, 4, 2, 2), torch.ones(3, 2, 2), torch.tensor([1, -1, -100])
    truth[0, 0, 0] = -1
    for class_weight in (None, WEIGHTS):
        ours, _ = both(use_mask=True, avg_non_ignore=True, class_weight=class_weight)
        each = ours(pred, truth, label, reduction_override='none')
        assert each[0].sum() > 0 and not each[1:].any()
        torch.testing.assert_close(ours(pred, truth, label), each.sum() / 3)


def test_further_differences_from_mmdet() -> None:
    # The mean over no elements.
    ours, mmdet = both()
    assert ours(logits(0, 4), torch.zeros(0).long()) == 0
    assert mmdet(logits(0, 4), torch.zeros(0).long()).isnan()
    # A weight (N,) for a table (N, N).
    pred, table, weight = torch.zeros(3, 3), torch.zeros(3, 3), torch.tensor([1.0, 2.0, 3.0])
    ours, mmdet = both(use_sigmoid=True)
    rows = weight[:, None].expand(3, 3) * F.softplus(torch.zeros(()))
    torch.testing.assert_close(ours(pred, table, weight, reduction_override='none'), rows)
    torch.testing.assert_close(mmdet(pred, table, weight, reduction_override='none'), rows.T)
    # One number as class_weight of softmax.
    ours, mmdet = both(class_weight=2.0)
    assert ours(pred, torch.arange(3)).item() == pytest.approx(2 * 1.0986123)
    with pytest.raises(RuntimeError, match='weight'):
        mmdet(pred, torch.arange(3))
    # mmdet ignores only its own default.
    ours, mmdet = both()
    label = torch.tensor([0, -100, 2])
    torch.testing.assert_close(ours(pred, label), mmdet(pred, label))


def test_classes_that_all_weigh_0_cost_nothing() -> None:
    ours, _ = both(class_weight=[0.0, 0.0, 0.0, 0.0])
    assert ours.class_weight == [0.0] * 4
    assert ours(logits(4, 4), torch.arange(4)).item() == 0


def test_a_forgotten_ignore_index_is_reported() -> None:
    ours, _ = both()
    with pytest.raises(ValueError, match='target has the label 255.*ignore_index'):
        ours(logits(2, 4), torch.tensor([0, 255]))
    assert ours(logits(2, 4), torch.tensor([0, 255]), ignore_index=255) > 0


def test_label_smoothing_equals_torch() -> None:
    loss = MODELS.build({'type': 'mmdet_ext.CrossEntropyLoss', 'label_smoothing': 0.2})
    pred, label = logits(5, 4), torch.arange(5) % 4
    torch.testing.assert_close(loss(pred, label), F.cross_entropy(pred, label, label_smoothing=0.2))


def test_weights_from_counts() -> None:
    by_counts = MODELS.build(
        {
            'type': 'mmdet_ext.CrossEntropyLoss',
            'class_weight': {'type': 'inverse_frequency', 'counts': [6, 2, 0, 4]},
        }
    )
    assert by_counts.class_weight == pytest.approx([12 / 18, 2.0, 2.0, 1.0])
    listed, _ = both(class_weight=by_counts.class_weight)
    pred, label = logits(8, 4), torch.arange(8) % 4
    assert torch.equal(by_counts(pred, label), listed(pred, label))


@pytest.mark.parametrize(
    'weight',
    [2.0, np.float32(2), np.array([2, 2, 2, 2]), torch.tensor([2.0, 2.0, 2.0, 2.0])],
)
def test_class_weights_may_be_a_number_an_array_or_a_tensor(weight: object) -> None:
    ours, _ = both(class_weight=weight)
    plain, _ = both()
    pred, label = logits(8, 4), torch.arange(8) % 4
    torch.testing.assert_close(ours(pred, label), 2 * plain(pred, label))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'use_sigmoid': True, 'use_mask': True}, 'set only one'),
        ({'use_mask': True, 'label_smoothing': 0.1}, 'label_smoothing must be 0 with use_mask'),
        ({'label_smoothing': 1.5}, r'label_smoothing must be in \[0, 1\], got 1.5'),
        ({'class_weight': [1.0, -2.0]}, 'class_weight must be .* from 0, got -2.0 for class 1'),
        ({'class_weight': {'type': 'log', 'counts': [1]}}, "'type' must be one of .*got 'log'"),
    ],
)
def test_wrong_options_are_reported(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MODELS.build({'type': 'mmdet_ext.CrossEntropyLoss', **options})


def test_the_background_has_the_mean_of_foreground_weights() -> None:
    generator = torch.Generator().manual_seed(0)
    pred = torch.randn(6, 4, generator=generator)
    label = torch.tensor([0, 1, 2, 3, 3, 1])
    weight = dict(type='inverse_log', counts=[209, 2381, 214])
    three = CrossEntropyLoss(class_weight=weight)
    listed = three.class_weight
    four = CrossEntropyLoss(class_weight=[*listed, sum(listed) / 3])
    torch.testing.assert_close(three(pred, label), four(pred, label))
    with pytest.raises(ValueError, match="counts='batch' is for the alpha of FocalLoss"):
        CrossEntropyLoss(class_weight=dict(type='inverse_log', counts='batch'))
