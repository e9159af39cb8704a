"""Contract of the losses of labels: the call that the decode heads of MMSegmentation make."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from mmdet_ext import losses
from mmdet_ext.catalog.case import Case
from mmdet_ext.catalog.loss_cases import LOSSES
from mmdet_ext.functional.numerics import map_blocks
from mmdet_ext.losses.base import ElementwiseLoss
from mmdet_ext.losses.labels import LabelLoss
from tests._helpers.tolerances import TOLERANCES, assert_equal_but_rounding

HEIGHT, WIDTH = 5, 6
COUNT = HEIGHT * WIDTH


def takes_labels(case: Case) -> bool:
    """Return whether the targets of a case are one label per row."""
    _, target = case.inputs(torch.Generator().manual_seed(0), 3)
    labels = isinstance(target, Tensor) and target.shape == (3,) and not target.is_floating_point()
    return labels and issubclass(getattr(losses, case.name), LabelLoss)


def ids(case: Case) -> str:
    return case.name + ''.join(f'-{v}' for v in case.options.values() if not isinstance(v, dict))


CASES = [case for case in LOSSES if takes_labels(case)]
EVERY = pytest.mark.parametrize('case', CASES, ids=ids)


def build(case: Case, **options: object) -> nn.Module:
    return MODELS.build({'type': f'mmdet_ext.{case.name}', **case.options, **options})


def inputs(case: Case) -> tuple[Tensor, Tensor]:
    """Make rows (COUNT, C) and their labels."""
    pred, label = case.inputs(torch.Generator().manual_seed(0), COUNT)
    return pred, label


def as_map(pred: Tensor) -> Tensor:
    """Return rows (COUNT, C) as a map (1, C, HEIGHT, WIDTH)."""
    return pred.t().reshape(1, -1, HEIGHT, WIDTH).contiguous()


def as_rows(each: Tensor) -> Tensor:
    """Return losses per pixel (1, ...) or per element (1, C, ...) as those of rows."""
    return each.flatten(1)[0] if each.dim() == 3 else each.flatten(2)[0].t()


def call(loss: nn.Module, pred: Tensor, label: Tensor, **more: Any) -> tuple[Tensor, Tensor]:
    """Return the loss and the gradient."""
    leaf = pred.detach().clone().requires_grad_()
    value = loss(leaf, label, **more)
    (gradient,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach(), gradient


def every_loss() -> list[type[ElementwiseLoss]]:
    found = [getattr(losses, name) for name in losses.__all__]
    return [cls for cls in found if issubclass(cls, ElementwiseLoss)]


def test_the_cases_are_the_losses_of_labels() -> None:
    named = {cls.__name__ for cls in every_loss() if issubclass(cls, LabelLoss)}
    assert {case.name for case in CASES} == named and len(named) >= 6


def test_names_by_default_differ_and_begin_with_loss() -> None:
    names = {cls.__name__: cls.default_loss_name() for cls in every_loss()}
    assert len(set(names.values())) == len(names)
    assert all(name.startswith('loss_') and name.islower() for name in names.values())
    assert names['CrossEntropyLoss'] == 'loss_ce' and names['FocalLoss'] == 'loss_focal'
    assert names['EqualizedFocalLoss'] == 'loss_equalized_focal'
    assert names['OHEMPixelLoss'] == 'loss_ohem_pixel'


@EVERY
def test_a_name_is_an_option_which_must_contain_loss(case: Case) -> None:
    assert build(case).loss_name == getattr(losses, case.name).default_loss_name()
    assert build(case, loss_name='loss_of_pixels').loss_name == 'loss_of_pixels'
    with pytest.raises(ValueError, match="loss_name must be a name with 'loss' in it, got 'ce'"):
        build(case, loss_name='ce')


@EVERY
def test_a_map_has_the_losses_of_its_pixels_as_rows(case: Case) -> None:
    pred, label = inputs(case)
    loss = build(case, reduction='sum', loss_weight=2.0)
    label_map = label.reshape(1, HEIGHT, WIDTH)
    expected, slope = call(loss, pred, label)
    value, gradient = call(loss, as_map(pred), label_map, ignore_index=255)
    torch.testing.assert_close(value, expected, **TOLERANCES[torch.float32])
    torch.testing.assert_close(gradient, as_map(slope), **TOLERANCES[torch.float32])
    each = loss(as_map(pred), label_map, reduction_override='none', ignore_index=255)
    rows = loss(pred, label, reduction_override='none')
    torch.testing.assert_close(as_rows(each), rows, **TOLERANCES[torch.float32])


@EVERY
def test_layouts_and_blocks_change_nothing(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    pred, label = inputs(case)
    pred, label = as_map(pred).repeat(2, 1, 1, 1), label.reshape(1, HEIGHT, WIDTH).repeat(2, 1, 1)
    loss = build(case)
    expected = call(loss, pred, label)
    wide = torch.cat([pred, pred], 3)[..., :WIDTH]
    turned = pred.transpose(2, 3).contiguous().transpose(2, 3)
    last = pred.contiguous(memory_format=torch.channels_last)
    for layout in (pred, wide, turned, last):
        for elements in (1, 13, 10_000):
            monkeypatch.setattr(map_blocks, 'CPU_BLOCK_ELEMENTS', elements)
            for found, wanted in zip(call(loss, layout, label), expected, strict=True):
                assert_equal_but_rounding(found, wanted)


@EVERY
def test_ignored_pixels_are_as_if_they_were_absent(case: Case) -> None:
    pred, label = inputs(case)
    keep = torch.arange(COUNT) % 3 != 0
    loss = build(case, reduction='sum')
    expected, slope = call(loss, pred[keep], label[keep])
    with_255 = label.where(keep, 255).reshape(1, HEIGHT, WIDTH)
    value, gradient = call(loss, as_map(pred), with_255, ignore_index=255)
    torch.testing.assert_close(value, expected, **TOLERANCES[torch.float32])
    rows = as_rows(gradient)
    torch.testing.assert_close(rows[keep], slope, **TOLERANCES[torch.float32])
    assert not rows[~keep].any()
    # Labels may come as bytes, which hold no -1.
    bytes_value, _ = call(loss, as_map(pred), with_255.byte(), ignore_index=255)
    assert torch.equal(bytes_value, value)


@EVERY
def test_pixels_of_weight_0_are_ignored_and_weights_are_per_pixel(case: Case) -> None:
    pred, label = inputs(case)
    label_map = label.reshape(1, HEIGHT, WIDTH)
    keep = (torch.arange(COUNT) % 3 != 0).reshape(1, HEIGHT, WIDTH)
    loss = build(case, reduction='sum')
    # Pixels of weight 0 are not mined, and so are no part of that mean either.
    for reduction in ('sum', 'mean') if case.name == 'OHEMPixelLoss' else ('sum',):
        same = {'reduction_override': reduction, 'ignore_index': 255}
        expected = call(loss, as_map(pred), label_map.where(keep, 255), **same)
        found = call(loss, as_map(pred), label_map, weight=keep.float(), **same)
        torch.testing.assert_close(found, expected, **TOLERANCES[torch.float32])
    if case.name != 'OHEMPixelLoss' or case.options['thresh'] is not None:
        weight = torch.linspace(0.5, 2, COUNT).reshape(1, HEIGHT, WIDTH)
        each = loss(as_map(pred), label_map, reduction_override='none')
        beside = weight if each.dim() == 3 else weight.unsqueeze(1)
        weighted = loss(as_map(pred), label_map, weight=weight)
        torch.testing.assert_close(weighted, (each * beside).sum(), **TOLERANCES[torch.float32])


@EVERY
def test_weights_are_per_pixel_also_where_the_sizes_fit_the_classes(case: Case) -> None:
    """A map (C, C, C, C) has labels and weights (C, C, C), the leading shape of the map."""
    pred, _ = inputs(case)
    classes = pred.shape[1]
    generator = torch.Generator().manual_seed(1)
    cube = torch.rand(classes, classes, classes, classes, generator=generator)
    label = torch.randint(classes, cube.shape[1:], generator=generator)
    weight = torch.zeros(label.shape)
    weight[1] = 1.0
    for reduction in ('none', 'mean', 'sum'):
        _, gradient = call(build(case, reduction=reduction), cube, label, weight=weight)
        assert gradient[1].any() and not gradient[0].any() and not gradient[2].any()


@EVERY
def test_a_weight_of_an_image_is_that_of_its_pixels(case: Case) -> None:
    pred, label = inputs(case)
    pred, label = as_map(pred).repeat(3, 1, 1, 1), label.reshape(1, HEIGHT, WIDTH).repeat(3, 1, 1)
    weight = torch.tensor([0.5, 0.0, 2.0])
    loss = build(case)
    found = call(loss, pred, label, weight=weight)
    pixels = weight.reshape(3, 1, 1).expand(label.shape)
    torch.testing.assert_close(found, call(loss, pred, label, weight=pixels))
    # Where the loss chooses pixels by their weighted loss, it may choose none of the first image.
    assert not found[1][1].any() and found[1][2].any()


@EVERY
def test_weights_of_elements_weigh_binary_columns_and_are_refused_by_a_softmax(case: Case) -> None:
    pred, label = inputs(case)
    pred, label = as_map(pred), label.reshape(1, HEIGHT, WIDTH)
    weight = (torch.arange(COUNT) % 3).float().reshape(1, 1, HEIGHT, WIDTH).expand(pred.shape)
    loss = build(case)
    if loss.use_sigmoid:
        found = call(loss, pred, label, weight=weight, reduction_override='sum')
        pixels = call(loss, pred, label, weight=weight[:, 0], reduction_override='sum')
        torch.testing.assert_close(found, pixels)
        assert not found[1][..., 0].any() and found[1][..., 2].any()
    else:
        with pytest.raises(ValueError, match='weight of shape .* does not fit a loss of shape'):
            loss(pred, label, weight=weight)


@EVERY
def test_a_keyword_that_the_loss_does_not_have_is_an_error(case: Case) -> None:
    pred, label = inputs(case)
    for arguments in ((pred, label), (as_map(pred), label.reshape(1, HEIGHT, WIDTH))):
        with pytest.raises(TypeError, match='gama'):
            build(case)(*arguments, gama=1.0)


@EVERY
def test_pixels_that_are_all_ignored_give_a_zero_with_a_graph(case: Case) -> None:
    pred, _ = inputs(case)
    ignored = torch.full((1, HEIGHT, WIDTH), 255)
    options = {} if case.name == 'OHEMPixelLoss' else {'avg_non_ignore': True}
    for loss in (build(case), build(case, **options)):
        value, gradient = call(loss, as_map(pred), ignored, ignore_index=255)
        assert value.item() == 0 and not gradient.any()
    empty = torch.zeros(0, pred.shape[1], 4, 4), torch.zeros(0, 4, 4, dtype=torch.long)
    value, _ = call(build(case), *empty, ignore_index=255)
    assert value.item() == 0


@EVERY
def test_avg_non_ignore_counts_what_is_not_ignored(case: Case) -> None:
    if case.name == 'OHEMPixelLoss':
        pytest.skip('it counts the pixels that are kept')
    pred, label = inputs(case)
    keep = torch.arange(COUNT) % 3 != 0
    label_map = label.where(keep, 255).reshape(1, HEIGHT, WIDTH)
    total, _ = call(build(case, reduction='sum'), as_map(pred), label_map, ignore_index=255)
    elements = loss_elements(case, pred)
    every, _ = call(build(case), as_map(pred), label_map, ignore_index=255)
    counted, _ = call(build(case, avg_non_ignore=True), as_map(pred), label_map, ignore_index=255)
    rows = build(case, avg_non_ignore=True)(pred, label.where(keep, 255), ignore_index=255)
    if case.name == 'CrossEntropyLoss' and 'class_weight' in case.options:
        weights = torch.tensor(case.options['class_weight'])[label[keep]]
        torch.testing.assert_close(every, total / weights.sum())
        torch.testing.assert_close(counted, every)
        torch.testing.assert_close(rows, total / int(keep.sum()))
        return
    torch.testing.assert_close(every, total / (COUNT * elements))
    torch.testing.assert_close(counted, total / (int(keep.sum()) * elements))
    torch.testing.assert_close(rows, counted)


def loss_elements(case: Case, pred: Tensor) -> int:
    """Return the number of elements of the loss of one pixel."""
    return pred.shape[1] if build(case).use_sigmoid else 1


@EVERY
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_computed_in_float32(case: Case, dtype: torch.dtype) -> None:
    pred, label = inputs(case)
    pred, label = as_map(pred).to(dtype), label.reshape(1, HEIGHT, WIDTH)
    value, gradient = call(build(case), pred, label, ignore_index=255)
    expected, slope = call(build(case), pred.float(), label, ignore_index=255)
    assert value.dtype == torch.float32 and gradient.dtype == dtype
    assert_equal_but_rounding(value, expected)
    torch.testing.assert_close(gradient, slope.to(dtype))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        amp, _ = call(build(case), pred, label, ignore_index=255)
    assert_equal_but_rounding(amp, expected)


@EVERY
def test_the_gradient_of_a_map_by_finite_differences(case: Case) -> None:
    if case.detaches or case.together:
        pytest.skip('a choice or a part of the formula is constant; see its own tests')
    pred, label = inputs(case)
    label = label.reshape(1, HEIGHT, WIDTH)[:, :2, :3]
    leaf = as_map(pred).double()[:, :, :2, :3].clone().requires_grad_()
    loss = build(case)
    assert torch.autograd.gradcheck(lambda p: loss(p, label, reduction_override='none'), leaf)
    # Again from one graph: nothing was written into what it keeps.
    value = loss(leaf, label)
    first, second = (torch.autograd.grad(value, leaf, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


@EVERY
def test_a_map_stays_on_the_device_of_its_inputs(case: Case) -> None:
    """Run on fake CUDA tensors, without a GPU."""
    pred, _ = inputs(case)
    loss = build(case)
    with FakeTensorMode(allow_non_fake_inputs=True):
        leaf = torch.empty(2, pred.shape[1], 4, 4, device='cuda').requires_grad_()
        label = torch.empty(2, 4, 4, dtype=torch.long, device='cuda')
        value = loss(leaf, label, weight=torch.empty(2, 4, 4, device='cuda'), ignore_index=255)
        assert value.device.type == 'cuda' and value.requires_grad


@EVERY
def test_branches_without_a_look_at_the_values_give_the_same(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    pred, label = inputs(case)
    label = label.where(torch.arange(COUNT) % 3 != 0, 255).reshape(1, HEIGHT, WIDTH)
    weight = torch.linspace(0, 1, COUNT).reshape(label.shape)
    found = []
    for compiles in (False, True):
        monkeypatch.setattr(torch.compiler, 'is_compiling', lambda compiles=compiles: compiles)
        found.append(call(build(case), as_map(pred), label, weight=weight, ignore_index=255))
    torch.testing.assert_close(*found)


@EVERY
@pytest.mark.slow
def test_a_map_compiles_in_one_graph(case: Case) -> None:
    pred, label = inputs(case)
    leaf, label = as_map(pred).requires_grad_(), label.reshape(1, HEIGHT, WIDTH)
    loss = build(case)
    compiled = torch.compile(loss.elementwise, fullgraph=True, backend='aot_eager')
    found = []
    for function in (loss.elementwise, compiled):
        each = function(leaf, label)
        found.append((each, *torch.autograd.grad(each.sum(), leaf)))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize(
    ('name', 'options', 'why'),
    [
        ('VarifocalLoss', {}, 'its targets are not labels of classes'),
        ('QualityFocalLoss', {}, 'its targets are not labels of classes'),
        ('SlideLoss', {}, 'for labels it is the cross entropy'),
        ('GIoULoss', {}, 'its targets are not labels of classes'),
        ('OHEMLoss', {'loss': {'type': 'mmdet_ext.CrossEntropyLoss'}}, 'OHEMPixelLoss mines'),
    ],
)
def test_other_losses_say_that_they_do_not_fit(
    name: str, options: dict[str, Any], why: str
) -> None:
    loss = MODELS.build({'type': f'mmdet_ext.{name}', **options})
    assert 'loss' in loss.loss_name
    pred, label = torch.zeros(1, 4, 3, 3), torch.zeros(1, 3, 3, dtype=torch.long)
    with pytest.raises(TypeError, match=f'does not fit the decode heads.*{why}.*CrossEntropyLoss'):
        loss(pred, label, weight=None, ignore_index=255)
