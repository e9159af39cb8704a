"""Contract of the box losses: targets that come from a ground-truth box without area."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder
from mmdet.registry import MODELS
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from mmdet_ext.catalog.case import Case
from mmdet_ext.catalog.loss_cases import LOSSES
from mmdet_ext.functional.boxes import offset_losses


def ids(case: Case) -> str:
    return case.name + ''.join(f'-{v}' for v in case.options.values() if not isinstance(v, dict))


OFFSETS = pytest.mark.parametrize(
    'case', [case for case in LOSSES if case.family == 'regression'], ids=ids
)
BOXES = pytest.mark.parametrize(
    'case', [case for case in LOSSES if case.family == 'overlap'], ids=ids
)

#: Anchors, and boxes of which the second has no width, the third no area, the fourth its corners
#: in the wrong order.
ANCHORS = torch.tensor([[8.0, 8.0, 40.0, 40.0]]).repeat(5, 1)
GROUND_TRUTH = torch.tensor(
    [
        [10.0, 12.0, 50.0, 44.0],
        [20.0, 12.0, 20.0, 44.0],
        [20.0, 20.0, 20.0, 20.0],
        [50.0, 12.0, 10.0, 44.0],
        [0.0, 0.0, 30.0, 20.0],
    ]
)
SOUND = torch.tensor([True, False, False, False, True])


@pytest.fixture(params=['with a look', 'without a look'])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Take both ways: that of a processor, and that of other devices and of compiled code."""
    if request.param == 'without a look':
        monkeypatch.setattr(offset_losses.torch.compiler, 'is_compiling', lambda: True)
    yield


def build(case: Case, **options: object) -> nn.Module:
    return MODELS.build({'type': f'mmdet_ext.{case.name}', **case.options, **options})


def encoded() -> tuple[Tensor, Tensor]:
    """Return predictions, and the targets that mmdet's coder gives."""
    pred = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    target = DeltaXYWHBBoxCoder(target_stds=(0.1, 0.1, 0.2, 0.2)).encode(ANCHORS, GROUND_TRUTH)
    assert torch.equal(target.isfinite().all(1), SOUND)
    assert target[1].isinf().any() and target[3].isnan().any()
    return pred, target


@OFFSETS
@pytest.mark.usefixtures('way')
def test_rows_of_targets_that_are_not_finite_weigh_0(case: Case) -> None:
    pred, target = encoded()
    results = []
    for rows in (slice(None), SOUND):
        leaf, wanted = (part[rows].clone().requires_grad_() for part in (pred, target))
        loss = build(case)(leaf, wanted, torch.full((len(leaf), 4), 0.5), avg_factor=2)
        results.append((loss, *torch.autograd.grad(loss, [leaf, wanted])))
    (loss, gradient, of_target), (expected, expected_gradient, of_expected) = results
    torch.testing.assert_close(loss, expected)
    for found, right in ((gradient, expected_gradient), (of_target, of_expected)):
        torch.testing.assert_close(found[SOUND], right)
        assert torch.equal(found[~SOUND], torch.zeros_like(found[~SOUND]))
    each = build(case)(pred, target, reduction_override='none')
    assert torch.equal(each[~SOUND], torch.zeros(3, 4)) and (each[SOUND] > 0).all()


@OFFSETS
@pytest.mark.usefixtures('way')
@pytest.mark.parametrize('odd', [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize('row', [0, 1], ids=['with a sound target', 'with a bad target'])
def test_predictions_that_are_not_finite_are_never_hidden(case: Case, odd: float, row: int) -> None:
    pred, target = encoded()
    pred[row, 2] = odd
    assert not build(case)(pred, target).isfinite()


@OFFSETS
@pytest.mark.usefixtures('way')
@pytest.mark.parametrize('shape', [(), (3,), (0,), (0, 4), (2, 0), (2, 3, 4)], ids=str)
def test_any_shape_takes_them(case: Case, shape: tuple[int, ...]) -> None:
    """One number for each sample weighs 0 alone; otherwise the last dimension is a row."""
    pred = torch.ones(shape, requires_grad=True)
    target = torch.zeros(shape)
    if target.numel():
        target.view(-1)[0] = -torch.inf
    each = build(case)(pred, target, reduction_override='none')
    each.sum().backward()
    bad = torch.zeros(shape, dtype=torch.bool)
    if target.numel():
        bad.view(-1)[: shape[-1] if len(shape) > 1 else 1] = True
    assert torch.equal(each == 0, bad) and torch.equal(pred.grad == 0, bad)


@OFFSETS
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_takes_them(case: Case, dtype: torch.dtype) -> None:
    pred, target = encoded()
    leaf = pred.to(dtype).requires_grad_()
    loss = build(case)(leaf, target.to(dtype))
    loss.backward()
    assert loss.isfinite() and leaf.grad.isfinite().all() and not leaf.grad[~SOUND].any()


@OFFSETS
def test_on_another_device_the_values_are_not_looked_at(case: Case) -> None:
    """A fake tensor has no values; looking at them raises an error."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        pred = torch.empty(5, 4, device='cuda').fill_(0).requires_grad_()
        target = torch.empty(5, 4, device='cuda').fill_(torch.inf)
        assert build(case)(pred, target).device.type == 'cuda'


@pytest.mark.parametrize('name', ['L1Loss', 'SmoothL1Loss', 'BalancedL1Loss'])
def test_the_losses_of_mmdet_are_not_finite(name: str) -> None:
    loss = MODELS.build({'type': f'mmdet.{name}'})
    pred, target = encoded()
    assert loss(pred[:2], target[:2]).isinf() and loss(pred, target).isnan()
    # A weight of 0 does not help.
    assert loss(pred[:2], target[:2], torch.tensor([[1.0], [0.0]]).expand(2, 4)).isnan()


@BOXES
@pytest.mark.parametrize('scale', [1.0, 1e-3, 1e3])
def test_overlap_losses_of_boxes_without_area_are_finite(case: Case, scale: float) -> None:
    """They need no coder: such a target is a box of which nothing is shared."""
    target = GROUND_TRUTH[[1, 2]].repeat(2, 1) * scale
    pred = torch.cat([ANCHORS[:2] * scale, target[:2]]).requires_grad_()
    each = build(case)(pred, target, reduction_override='none')
    (gradient,) = torch.autograd.grad(each.sum(), pred)
    assert each.isfinite().all() and (each >= 0).all() and gradient.isfinite().all()
    if 'focal_gamma' not in case.options:  # a power of the IoU, 0 here, is its factor
        assert (each[:2] > 0).all()
    if case.zero_at_target:
        assert torch.equal(each[2:], torch.zeros(2))
