"""Overlap losses: facts, slow references, and errors of mmdet's losses."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from mmdet.models.losses import CIoULoss as MmdetCIoULoss
from torch import Tensor
from torchvision.ops import complete_box_iou_loss

from mmdet_ext.catalog.loss_cases import box_pairs
from mmdet_ext.catalog.synthetic import fuzz_box_pairs, random_boxes
from mmdet_ext.functional.boxes import corner_losses, iou_losses, shape_losses, wise_iou
from mmdet_ext.functional.boxes.iou_losses import ciou_loss


def slow_ciou(pred: list[float], target: list[float], alpha: float | None = None) -> float:
    """Compute CIoU of one pair in Python numbers; ``alpha`` fixes the trade-off weight."""
    px1, py1, px2, py2 = pred
    tx1, ty1, tx2, ty2 = target
    inner_w = max(0.0, min(px2, tx2) - max(px1, tx1))
    inner_h = max(0.0, min(py2, ty2) - max(py1, ty1))
    inner = inner_w * inner_h
    area_p, area_t = (px2 - px1) * (py2 - py1), (tx2 - tx1) * (ty2 - ty1)
    iou = inner / (area_p + area_t - inner)
    rho2 = ((px1 + px2 - tx1 - tx2) ** 2 + (py1 + py2 - ty1 - ty2) ** 2) / 4
    c2 = (max(px2, tx2) - min(px1, tx1)) ** 2 + (max(py2, ty2) - min(py1, ty1)) ** 2
    gap = math.atan((tx2 - tx1) / (ty2 - ty1)) - math.atan((px2 - px1) / (py2 - py1))
    v = 4 / math.pi**2 * gap**2
    if alpha is None:
        alpha = v / (1 - iou + v) if iou > 0.5 else 0.0
    return 1 - iou + rho2 / c2 + alpha * v


def slow_alpha(pred: list[float], target: list[float]) -> float:
    """Compute the weight that `slow_ciou` uses, from its values at alpha 0 and 1."""
    v = slow_ciou(pred, target, 1.0) - slow_ciou(pred, target, 0.0)
    inner_w = max(0.0, min(pred[2], target[2]) - max(pred[0], target[0]))
    inner_h = max(0.0, min(pred[3], target[3]) - max(pred[1], target[1]))
    inner = inner_w * inner_h
    union = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (pred, target)) - inner
    return v / (1 - inner / union + v) if inner / union > 0.5 else 0.0


def test_closed_forms() -> None:
    square = torch.tensor([0.0, 0.0, 2.0, 2.0])
    # Disjoint squares along the diagonal: IoU 0, rho^2 = 2 * 3^2, c^2 = 2 * 5^2.
    far = torch.tensor([3.0, 3.0, 5.0, 5.0])
    assert ciou_loss(far, square).item() == pytest.approx(1 + 18 / 50)
    # Same centre, half as wide: IoU 1/2, so no aspect term, and rho 0.
    thin = torch.tensor([0.5, 0.0, 1.5, 2.0])
    assert ciou_loss(thin, square).item() == pytest.approx(0.5)
    # Same centre, 3/4 as wide: IoU 3/4, and the aspect term counts.
    v = 4 / math.pi**2 * (math.atan(1) - math.atan(0.75)) ** 2
    wide = torch.tensor([0.25, 0.0, 1.75, 2.0])
    assert ciou_loss(wide, square).item() == pytest.approx(0.25 + v * v / (0.25 + v))


def test_the_threshold_of_the_aspect_ratio_is_an_option() -> None:
    # Half as wide on one centre: IoU 1/2. With the aspect term, v^2 / (1/2 + v) more.
    square, thin = torch.tensor([0.0, 0.0, 2.0, 2.0]), torch.tensor([0.5, 0.0, 1.5, 2.0])
    v = 4 / math.pi**2 * (math.atan(1) - math.atan(0.5)) ** 2
    with_term = pytest.approx(0.5 + v * v / (0.5 + v))
    assert ciou_loss(thin, square, aspect_thr=0.4).item() == with_term
    assert ciou_loss(thin, square, aspect_thr=None).item() == with_term
    assert ciou_loss(thin, square, aspect_thr=0.6).item() == pytest.approx(0.5)
    with pytest.raises(ValueError, match=r'aspect_thr must be in \[0, 1\], got 2'):
        ciou_loss(thin, square, aspect_thr=2)


def test_invariant_under_shift_and_scale() -> None:
    pred, target = (t.double() for t in box_pairs(torch.Generator().manual_seed(0), 100))
    plain = ciou_loss(pred, target)
    torch.testing.assert_close(ciou_loss(pred * 7, target * 7), plain, rtol=1e-9, atol=1e-9)
    shift = torch.tensor([50.0, -20.0, 50.0, -20.0])
    torch.testing.assert_close(ciou_loss(pred + shift, target + shift), plain, rtol=1e-9, atol=1e-9)


def test_value_equals_the_slow_reference() -> None:
    generator = torch.Generator().manual_seed(0)
    near, target = box_pairs(generator, 200)
    far = random_boxes(generator, 200)
    for pred in (near, far):
        expected = [slow_ciou(p, t) for p, t in zip(pred.tolist(), target.tolist(), strict=True)]
        torch.testing.assert_close(
            ciou_loss(pred.double(), target.double()), torch.tensor(expected, dtype=torch.float64)
        )


def test_gradient_equals_differences_of_the_slow_reference_with_alpha_fixed() -> None:
    near, target = box_pairs(torch.Generator().manual_seed(0), 50)
    pred = near.double().requires_grad_()
    ciou_loss(pred, target.double()).sum().backward()
    step = 1e-5
    for row, wanted, gradient in zip(
        pred.tolist(), target.double().tolist(), pred.grad, strict=True
    ):
        alpha = slow_alpha(row, wanted)
        for k in range(4):
            up, down = list(row), list(row)
            up[k] += step
            down[k] -= step
            slope = (slow_ciou(up, wanted, alpha) - slow_ciou(down, wanted, alpha)) / (2 * step)
            assert gradient[k].item() == pytest.approx(slope, rel=1e-5, abs=1e-8)


def test_equal_to_mmdet_and_torchvision_where_those_are_right() -> None:
    generator = torch.Generator().manual_seed(1)
    near, target = box_pairs(generator, 500)
    ours = ciou_loss(near.double(), target.double())
    theirs = MmdetCIoULoss(reduction='none')(near.double(), target.double())
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    # torchvision does not set alpha to 0 below IoU 0.5. Only pairs above that are compared.
    close = target.double() + (near - target).double() * 0.1
    overlapping = ciou_loss(close, target.double()) < 0.5
    theirs = complete_box_iou_loss(close, target.double())
    ours_close = ciou_loss(close, target.double())
    assert overlapping.sum() > 300
    torch.testing.assert_close(ours_close[overlapping], theirs[overlapping], rtol=0, atol=1e-6)


def test_equal_boxes_have_a_loss_of_0_where_mmdet_is_nan() -> None:
    boxes = random_boxes(torch.Generator().manual_seed(0), 100)
    boxes = torch.cat([boxes, torch.tensor([[5.0, 5.0, 5.0, 5.0], [1e4, 1e4, 2e4, 1.1e4]])])

    def value_and_gradient(loss: torch.nn.Module | None) -> tuple[Tensor, Tensor]:
        pred = boxes.clone().requires_grad_()
        each = ciou_loss(pred, boxes) if loss is None else loss(pred, boxes)
        each.sum().backward()
        assert pred.grad is not None
        return each.detach(), pred.grad

    ours, gradient = value_and_gradient(None)
    assert torch.equal(ours, torch.zeros(len(boxes)))
    assert torch.isfinite(gradient).all()
    theirs, their_gradient = value_and_gradient(MmdetCIoULoss(reduction='none'))
    assert theirs.isnan().any() and their_gradient.isnan().any()


def test_half_precision_is_right_where_mmdet_is_not() -> None:
    target = random_boxes(torch.Generator().manual_seed(0), 200, 2000, 2000, 200, 900).half()
    pred = (target + 4).half()
    reference = ciou_loss(pred.double(), target.double())
    assert reference.max() < 0.2
    ours = ciou_loss(pred, target)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), reference, rtol=1e-4, atol=1e-6)
    theirs = MmdetCIoULoss(reduction='none')(pred, target)
    assert theirs.isnan().any()


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_never_nan(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(3)
    pred, target = (t.to(dtype) for t in fuzz_box_pairs(generator, 20_000))
    pred.requires_grad_()
    each = ciou_loss(pred, target)
    each.sum().backward()
    assert pred.grad is not None
    assert torch.isfinite(each).all() and torch.isfinite(pred.grad).all()
    assert each.min() >= 0 and each.max() < 3


def test_compiles_in_one_graph() -> None:
    pred, target = box_pairs(torch.Generator().manual_seed(0), 64)
    compiled = torch.compile(ciou_loss, fullgraph=True, backend='aot_eager')
    torch.testing.assert_close(compiled(pred, target), ciou_loss(pred, target))


def test_bad_shapes_are_named() -> None:
    with pytest.raises(ValueError, match=r'got \(3, 4\) and \(2, 4\)'):
        ciou_loss(torch.zeros(3, 4), torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r'got \(3, 5\) and \(3, 5\)'):
        ciou_loss(torch.zeros(3, 5), torch.zeros(3, 5))


FLAT = torch.tensor([[0.0, 0.0, 0.0, 5.0]]), torch.tensor([[9.0, 9.0, 9.0, 14.0]])


@pytest.mark.parametrize(
    ('loss', 'expected'),
    [
        (lambda p, t: iou_losses.iou_loss(p, t, 'linear'), 1.0),
        (lambda p, t: iou_losses.iou_loss(p, t, 'square'), 1.0),
        (lambda p, t: iou_losses.iou_loss(p, t, 'log'), math.log(1e6)),
        (iou_losses.giou_loss, 2.0),
        (iou_losses.diou_loss, 1 + 162 / (81 + 196)),
    ],
)
def test_different_boxes_without_area_have_an_iou_of_0(
    loss: Callable[..., torch.Tensor], expected: float
) -> None:
    pred, target = FLAT
    assert loss(pred, target).item() == pytest.approx(expected, rel=1e-6)
    assert loss(target, target).item() == 0


@pytest.mark.parametrize('size', [1e-3, 1e-5, 1e-8, 1e-15])
def test_value_of_tiny_boxes_equals_that_of_large_ones(size: float) -> None:
    """The floors bound only the gradient."""
    pred, target = torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 0, 3, 2]])
    for mode in ('linear', 'log'):
        leaf = (pred * size).requires_grad_()
        value = iou_losses.iou_loss(leaf, target * size, mode)
        torch.testing.assert_close(value, iou_losses.iou_loss(pred, target, mode))
        value.sum().backward()
        assert leaf.grad.abs().max() <= 2 / 1e-3


@pytest.mark.parametrize('shared', [0.1, 0.5, 2.0])
def test_log_slope_of_a_long_box_beside_a_short_one(shared: float) -> None:
    """The slope is 1 over the width of the intersection; the sides of the boxes do not bound it."""
    pred = torch.tensor([[0.0, 0.0, 10.0, 1000.0]], dtype=torch.float64, requires_grad=True)
    target = torch.tensor([[10.0 - shared, 500.0, 30.0, 502.0]], dtype=torch.float64)
    iou_losses.iou_loss(pred, target, 'log').sum().backward()
    union = 10_000 + 2 * (20 + shared) - 2 * shared
    expected = -1 / shared + (1000 - 2) / union
    assert pred.grad[0, 2].item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda p, t: iou_losses.iou_loss(p, t, 'giou'), "mode must be one of .*, got 'giou'"),
        (lambda p, t: wise_iou.wise_iou_loss(p, t, 'V1'), "version must be one of .*, got 'V1'"),
        (lambda p, t: iou_losses.giou_loss(p, t, eps=0), 'eps must be above 0'),
        (lambda p, t: iou_losses.iou_loss(p, t, power=-1), 'power must be above 0'),
        (
            lambda p, t: shape_losses.siou_loss(p, t, power=1.5),
            'power must be 1 with neg_gamma=False',
        ),
        (lambda p, t: shape_losses.efficient_iou_loss(p, t, -1.0), 'focal_gamma must be above 0'),
        (lambda p, t: shape_losses.shape_iou_loss(p, t, -1.0), 'scale must be at least 0'),
        (lambda p, t: corner_losses.mpdiou_loss(p, t, (640, 0)), 'image_size must be above 0'),
        (lambda p, t: corner_losses.nwd_loss(p, t, constant=0), 'constant must be above 0'),
    ],
)
def test_functional_forms_name_bad_options(call: Callable[..., torch.Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(*FLAT)


def test_an_argument_that_is_no_tensor_is_named() -> None:
    with pytest.raises(TypeError, match='target must be a tensor of boxes .*, got NoneType'):
        iou_losses.giou_loss(FLAT[0], None)


def test_paper_form_of_siou_at_the_target_with_a_tiny_eps() -> None:
    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0]], requires_grad=True)
    value = shape_losses.siou_loss(boxes, boxes.detach(), eps=1e-23, neg_gamma=True)
    value.sum().backward()
    assert value.item() == 0 and torch.isfinite(boxes.grad).all()
