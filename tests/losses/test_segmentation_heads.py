"""Losses of labels in MMSegmentation's decode heads, and beside its losses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmdet_ext.catalog.memory import peak_bytes
from mmdet_ext.utils.families import installed_family
from tests._helpers.tolerances import TOLERANCES

pytest.importorskip('mmseg')

from mmseg.models.decode_heads import FCNHead
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from mmseg.structures.sampler import OHEMPixelSampler

CLASSES = 4
FLOAT = TOLERANCES[torch.float32]
pytestmark = pytest.mark.filterwarnings('ignore:Default ``avg_non_ignore`` is False')


def build(scope: str, name: str, **options: Any) -> nn.Module:
    return MODELS.build({'type': f'{scope}.{name}', **options})


def maps(classes: int = CLASSES, ignored: bool = True) -> tuple[Tensor, Tensor]:
    """Make logits (2, classes, 6, 7), and labels of which some are 255."""
    generator = torch.Generator().manual_seed(0)
    pred = 3 * torch.randn(2, classes, 6, 7, generator=generator)
    label = torch.randint(max(2, classes), (2, 6, 7), generator=generator)
    if ignored:
        label[torch.rand(label.shape, generator=generator) < 0.3] = 255
    return pred, label


def both(
    name: str, options: dict[str, Any], pred: Tensor, label: Tensor, **more: Any
) -> list[tuple[Tensor, Tensor]]:
    """Return the value and the gradient of MMSegmentation's loss and of ours."""
    found = []
    for scope in ('mmseg', 'mmdet_ext'):
        leaf = pred.clone().requires_grad_()
        value = build(scope, name, **options)(leaf, label, **more)
        found.append((value.detach(), torch.autograd.grad(value.sum(), leaf)[0]))
    return found


@pytest.mark.parametrize('reduction', ['none', 'mean', 'sum'])
@pytest.mark.parametrize('weighted', [False, True])
@pytest.mark.parametrize(
    ('classes', 'options'),
    [
        (CLASSES, {}),
        (CLASSES, {'use_sigmoid': True}),
        (1, {'use_sigmoid': True}),
        (CLASSES, {'avg_non_ignore': True, 'loss_weight': 0.4}),
        (CLASSES, {'avg_non_ignore': True, 'use_sigmoid': True}),
        (1, {'avg_non_ignore': True, 'use_sigmoid': True}),
    ],
    ids=str,
)
def test_cross_entropy_equals_mmsegs(
    reduction: str, weighted: bool, classes: int, options: dict[str, Any]
) -> None:
    pred, label = maps(classes)
    weight = torch.linspace(0, 2, label.numel()).reshape(label.shape) if weighted else None
    options = {**options, 'reduction': reduction}
    theirs, ours = both('CrossEntropyLoss', options, pred, label, weight=weight, ignore_index=255)
    if reduction == 'none' and classes == 1:
        ours = (ours[0].squeeze(1), ours[1])  # theirs lacks the dimension of the column
    torch.testing.assert_close(ours, theirs, **FLOAT)


@pytest.mark.parametrize('avg_non_ignore', [False, True])
def test_class_weights_divide_a_mean_as_in_mmseg_and_torch(avg_non_ignore: bool) -> None:
    weights = [0.5, 1.0, 2.0, 4.0]
    options = {'class_weight': weights, 'avg_non_ignore': avg_non_ignore}
    loss = build('mmdet_ext', 'CrossEntropyLoss', **options)
    for ignored in (False, True):
        pred, label = maps(ignored=ignored)
        value = loss(pred, label, ignore_index=255)
        expected = F.cross_entropy(pred, label, torch.tensor(weights), None, 255)
        torch.testing.assert_close(value, expected)
        why = mmseg_refuses_class_weights(ignored, avg_non_ignore)
        if why is None:
            theirs, ours = both('CrossEntropyLoss', options, pred, label, ignore_index=255)
            torch.testing.assert_close(ours, theirs, **FLOAT)
        else:
            with pytest.raises(IndexError, match=why):
                build('mmseg', 'CrossEntropyLoss', **options)(pred, label, ignore_index=255)
    # One number for all classes is a factor.
    twice = build('mmdet_ext', 'CrossEntropyLoss', class_weight=2.0)(pred, label, ignore_index=255)
    once = build('mmdet_ext', 'CrossEntropyLoss')(pred, label, ignore_index=255)
    torch.testing.assert_close(twice, 2 * once)


def mmseg_refuses_class_weights(ignored: bool, avg_non_ignore: bool) -> str | None:
    """Return the error of mmseg's cross entropy with class weights, which differs by family."""
    if installed_family() == 'onedl':
        return 'too many indices for tensor' if avg_non_ignore else None
    return 'index 255 is out of bounds' if ignored else None


def test_sigmoid_class_weights_belong_to_the_classes_and_in_mmseg_to_the_width() -> None:
    pred, label = maps(ignored=False)
    options = {'use_sigmoid': True, 'class_weight': [0.5, 1.0, 2.0, 4.0]}
    with pytest.raises(RuntimeError, match='must match the size'):
        build('mmseg', 'CrossEntropyLoss', **options)(pred, label, ignore_index=255)
    value = build('mmdet_ext', 'CrossEntropyLoss', **options)(pred, label, ignore_index=255)
    truth = F.one_hot(label, CLASSES).movedim(-1, 1).float()
    weights = torch.tensor(options['class_weight']).reshape(-1, 1, 1)
    expected = F.binary_cross_entropy_with_logits(pred, truth, pos_weight=weights)
    torch.testing.assert_close(value, expected)


@pytest.mark.parametrize('class_weight', [None, [0.5, 1.0, 2.0, 4.0]])
@pytest.mark.parametrize('reduction', ['none', 'mean', 'sum'])
def test_focal_loss_equals_mmsegs_where_that_runs(
    reduction: str, class_weight: list[float] | None
) -> None:
    """On a CPU mmseg's raises for labels; it takes targets of each element and flat weights."""
    pred, label = maps()
    options: dict[str, Any] = {'alpha': 0.25, 'gamma': 2.0, 'class_weight': class_weight}
    options['reduction'] = reduction
    with pytest.raises((RuntimeError, ValueError)):
        build('mmseg', 'FocalLoss', **options)(pred, label, ignore_index=255)
    kept = label != 255
    truth = F.one_hot(label.where(kept, 0), CLASSES).movedim(-1, 1).float()
    found = []
    for scope, target, weight in (
        ('mmseg', truth, kept.float().flatten()),
        ('mmdet_ext', label, None),
    ):
        leaf = pred.clone().requires_grad_()
        value = build(scope, 'FocalLoss', **options)(leaf, target, weight, ignore_index=255)
        found.append((value.detach(), torch.autograd.grad(value.sum(), leaf)[0]))
    torch.testing.assert_close(found[1], found[0], **FLOAT)


def test_focal_loss_takes_the_weights_of_a_sampler_which_mmsegs_refuses() -> None:
    pred, label = maps(ignored=False)
    truth = F.one_hot(label, CLASSES).movedim(-1, 1).float()
    weight = (torch.arange(label.numel()).reshape(label.shape) % 2).float()
    with pytest.raises(AssertionError):
        build('mmseg', 'FocalLoss')(pred, truth, weight, ignore_index=255)
    loss = build('mmdet_ext', 'FocalLoss', reduction='none')
    each = loss(pred, label, ignore_index=255)
    torch.testing.assert_close(loss(pred, label, weight), each * weight.unsqueeze(1))


@pytest.mark.parametrize('name', ['CrossEntropyLoss', 'FocalLoss', 'LogitAdjustedLoss'])
def test_one_column_is_the_probability_of_the_label_1(name: str) -> None:
    options = {'counts': [1]} if name == 'LogitAdjustedLoss' else {}
    loss = build('mmdet_ext', name, use_sigmoid=True, reduction='none', **options)
    pred = torch.full((1, 1, 1, 3), 4.0)
    each = loss(pred, torch.tensor([[[1, 0, 255]]]), ignore_index=255).flatten()
    assert each[0] < 0.02 and each[1] > 1.5 and each[2] == 0
    with pytest.raises(ValueError, match='target has the label 2, but pred has one column'):
        loss(pred, torch.tensor([[[1, 0, 2]]]), ignore_index=255)
    if name != 'LogitAdjustedLoss':
        softmax = build('mmdet_ext', name, use_sigmoid=False)
        with pytest.raises(ValueError, match='use_sigmoid must be True, got False.*out_channels=1'):
            softmax(pred, torch.tensor([[[1, 0, 0]]]), ignore_index=255)


def head(loss_decode: Any, **options: Any) -> tuple[FCNHead, list[Tensor], list[SegDataSample]]:
    """Make a decode head, features and data samples."""
    torch.manual_seed(0)
    made = FCNHead(
        in_channels=3,
        channels=8,
        num_classes=CLASSES,
        loss_decode=loss_decode,
        dropout_ratio=0.0,
        norm_cfg={'type': 'BN'},
        num_convs=1,
        **options,
    )
    _, label = maps()
    samples = []
    for each in label:
        sample = SegDataSample()
        sample.set_data({'gt_sem_seg': _pixel_data(each[None])})
        samples.append(sample)
    return made, [torch.randn(2, 3, 3, 4)], samples


def _pixel_data(label: Tensor) -> Any:
    from mmengine.structures import PixelData

    return PixelData(data=label)


def test_a_head_with_several_losses_lists_each_and_adds_those_of_one_name() -> None:
    names = ('CrossEntropyLoss', 'FocalLoss', 'OHEMPixelLoss')
    config = [{'type': f'mmdet_ext.{name}'} for name in names]
    more = {'type': 'mmdet_ext.BalancedSoftmaxLoss', 'counts': [4, 3, 2, 1], 'loss_name': 'loss_ce'}
    found = []
    for losses in (config, [*config, more]):
        made, features, samples = head(losses)
        found.append(made.loss(features, samples, {}))
    first, second = found
    assert set(first) == {'loss_ce', 'loss_focal', 'loss_ohem_pixel', 'acc_seg'} == set(second)
    assert second['loss_ce'] > first['loss_ce'] and second['loss_focal'] == first['loss_focal']
    sum(value for name, value in second.items() if 'loss' in name).backward()


@pytest.mark.parametrize('thresh', [None, 0.5])
def test_a_sampler_gives_the_losses_of_mmsegs_head(thresh: float | None) -> None:
    sampler = {'type': 'mmseg.OHEMPixelSampler', 'thresh': thresh, 'min_kept': 5}
    found = []
    for scope in ('mmseg', 'mmdet_ext'):
        made, features, samples = head({'type': f'{scope}.CrossEntropyLoss'}, sampler=sampler)
        found.append(made.loss(features, samples, {})['loss_ce'])
    torch.testing.assert_close(found[1], found[0], **FLOAT)


@pytest.mark.parametrize(('thresh', 'min_kept'), [(0.7, 4), (0.05, 4), (0.05, 12), (None, 6)])
def test_ohem_keeps_the_pixels_of_mmsegs_sampler(thresh: float | None, min_kept: int) -> None:
    pred, label = maps()
    made, _, _ = head({'type': 'mmseg.CrossEntropyLoss'})
    weight = OHEMPixelSampler(made, thresh, min_kept).sample(pred, label.unsqueeze(1))
    loss = build('mmdet_ext', 'OHEMPixelLoss', thresh=thresh, min_kept=min_kept, reduction='none')
    each = loss(pred, label, ignore_index=255)
    assert torch.equal(each > 0, weight > 0) and 0 < int(weight.sum()) < int((label < 255).sum())
    cost = F.cross_entropy(pred, label, ignore_index=255, reduction='none')
    torch.testing.assert_close(each, cost * weight, **FLOAT)
    mean = build('mmdet_ext', 'OHEMPixelLoss', thresh=thresh, min_kept=min_kept)
    torch.testing.assert_close(
        mean(pred, label, ignore_index=255), (cost * weight).sum() / weight.sum()
    )


@pytest.mark.parametrize('class_weight', [None, [0.5, 1.0, 2.0, 4.0]])
def test_ohem_equals_mmsegs_ohem_cross_entropy(class_weight: list[float] | None) -> None:
    pred, label = maps()
    theirs = build('mmseg', 'OhemCrossEntropy', thres=0.3, min_kept=10, class_weight=class_weight)
    inner = {'type': 'mmdet_ext.CrossEntropyLoss', 'class_weight': class_weight}
    ours = build('mmdet_ext', 'OHEMPixelLoss', loss=inner, thresh=0.3, min_kept=5)
    torch.testing.assert_close(ours(pred, label, ignore_index=255), theirs(pred, label), **FLOAT)


def test_ohem_is_defined_where_mmsegs_sampler_keeps_nothing() -> None:
    """Equal probabilities, and fewer pixels than min_kept, keep no or too few pixels there."""
    pred, label = torch.zeros(1, CLASSES, 2, 3), torch.zeros(1, 2, 3, dtype=torch.long)
    made, _, _ = head({'type': 'mmseg.CrossEntropyLoss'})
    sampled = OHEMPixelSampler(made, 0.1, 2).sample(pred, label.unsqueeze(1))
    assert sampled.sum() == 0
    for min_kept, kept in ((2, 2), (100, 6), (0, 0)):
        loss = build('mmdet_ext', 'OHEMPixelLoss', thresh=0.1, min_kept=min_kept, reduction='none')
        each = loss(pred, label, ignore_index=255)
        # Of equal pixels the earlier are kept.
        assert (each > 0).flatten().tolist() == [True] * kept + [False] * (6 - kept)


def test_ohem_around_mmsegs_loss_ignores_what_the_head_ignores() -> None:
    pred, label = maps()
    label[0, 0, 0] = -1
    options = {'min_kept': 8, 'thresh': 0.2}
    found = []
    for scope in ('mmseg', 'mmdet_ext'):
        inner = {'type': f'{scope}.CrossEntropyLoss'}
        leaf = pred.clone().requires_grad_()
        value = build('mmdet_ext', 'OHEMPixelLoss', loss=inner, **options)(
            leaf, label, ignore_index=255
        )
        found.append((value, *torch.autograd.grad(value, leaf)))
    torch.testing.assert_close(found[0], found[1], **FLOAT)


@pytest.mark.parametrize('inner', ['mmdet_ext.DiceLoss', 'mmseg.DiceLoss'])
def test_ohem_refuses_a_loss_without_a_value_per_pixel(inner: str) -> None:
    """One value per image would be taken for that of each pixel, where there is one image."""
    pred, label = maps(ignored=False)
    loss = build('mmdet_ext', 'OHEMPixelLoss', loss={'type': inner})
    for images in (1, 2):
        with pytest.raises(ValueError, match=rf'DiceLoss gave a loss of shape \({images},\)'):
            loss(pred[:images], label[:images], ignore_index=255)
    with pytest.raises(ValueError, match=r'target must be labels \(2, 6, 7\)'):
        build('mmdet_ext', 'OHEMPixelLoss')(pred, pred)


def test_other_decode_heads_call_with_points() -> None:
    pred, label = torch.randn(2, CLASSES, 9), torch.randint(CLASSES, (2, 9))
    theirs, ours = both('CrossEntropyLoss', {}, pred, label, ignore_index=255)
    torch.testing.assert_close(ours, theirs, **FLOAT)


@pytest.mark.parametrize(
    ('name', 'options', 'tables'),
    [
        ('CrossEntropyLoss', {}, 1.5),
        ('CrossEntropyLoss', {'use_sigmoid': True}, 1.5),
        ('FocalLoss', {}, 1.5),
        ('FocalLoss', {'use_sigmoid': False, 'alpha': None}, 1.8),
        ('BalancedSoftmaxLoss', {'counts': list(range(1, 20))}, 1.5),
    ],
)
def test_one_table_is_all_that_a_loss_needs(
    name: str, options: dict[str, Any], tables: float
) -> None:
    pred = torch.randn(2, 19, 256, 512).requires_grad_()
    label = torch.randint(19, (2, 256, 512))
    loss = build('mmdet_ext', name, **options)

    def work() -> None:
        pred.grad = None
        loss(pred, label, ignore_index=255).backward()

    table = pred.numel() * 4
    assert table <= peak_bytes(work) < tables * table
