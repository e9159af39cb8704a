"""Every overlap loss compared with its formula in Python numbers, and with values by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from mmdet_ext.catalog.loss_cases import box_pairs
from mmdet_ext.catalog.synthetic import fuzz_box_pairs, random_boxes
from mmdet_ext.functional.boxes import corner_losses, iou_losses, shape_losses, wise_iou
from mmdet_ext.functional.boxes.overlap import box_nwd, box_wasserstein

Box = list[float]


class Slow(NamedTuple):
    """Lengths and areas of a pair, computed by their definitions."""

    iou: float
    union: float
    outer: tuple[float, float]
    sides: tuple[float, float]
    target_sides: tuple[float, float]
    gap: tuple[float, float]


def measure(p: Box, t: Box) -> Slow:
    inner = [max(0.0, min(p[k + 2], t[k + 2]) - max(p[k], t[k])) for k in (0, 1)]
    sides = p[2] - p[0], p[3] - p[1]
    target_sides = t[2] - t[0], t[3] - t[1]
    intersection = inner[0] * inner[1]
    union = sides[0] * sides[1] + target_sides[0] * target_sides[1] - intersection
    outer = tuple(max(p[k + 2], t[k + 2]) - min(p[k], t[k]) for k in (0, 1))
    gap = tuple((p[k] + p[k + 2] - t[k] - t[k + 2]) / 2 for k in (0, 1))
    return Slow(intersection / union, union, outer, sides, target_sides, gap)


def scale(box: Box, ratio: float) -> Box:
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    w, h = (box[2] - box[0]) * ratio / 2, (box[3] - box[1]) * ratio / 2
    return [x - w, y - h, x + w, y + h]


def raised(value: float, power: float) -> float:
    """Raise a value to a power; below 1, with the secant from 0 to 16**(-1 / (1 - power))."""
    floor = 16 ** (-1 / (1 - power)) if power < 1 else 0.0
    return value * floor ** (power - 1) if 0 < value < floor else value**power


def overlap(p: Box, t: Box, power: float, ratio: float) -> float:
    return 1 - raised(measure(scale(p, ratio), scale(t, ratio)).iou, power)


def diagonal(m: Slow) -> float:
    return m.outer[0] ** 2 + m.outer[1] ** 2


def centers(m: Slow) -> float:
    return (m.gap[0] ** 2 + m.gap[1] ** 2) / diagonal(m)


# Arguments: pair, power, ratio, and the prediction from which factors without a gradient come.
def slow_linear(p: Box, t: Box, a: float, r: float, held: Box) -> float:
    return overlap(p, t, a, r)


def slow_square(p: Box, t: Box, a: float, r: float, held: Box) -> float:
    return overlap(p, t, 2 * a, r)


def slow_log(p: Box, t: Box, a: float, r: float, held: Box) -> float:
    iou = 1 - overlap(p, t, 1.0, r)
    return -a * math.log(max(iou, 1e-6))


def slow_giou(p: Box, t: Box, a: float, r: float, held: Box) -> float:
    m = measure(p, t)
    around = m.outer[0] * m.outer[1]
    return overlap(p, t, a, r) + raised(max(0.0, around - m.union) / around, a)


def slow_diou(p: Box, t: Box, a: float, r: float, held: Box) -> float:
    return overlap(p, t, a, r) + centers(measure(p, t)) ** a


def aspect(m: Slow) -> float:
    gap = math.atan(m.target_sides[0] / m.target_sides[1]) - math.atan(m.sides[0] / m.sides[1])
    return 4 / math.pi**2 * gap**2


def slow_ciou(p: Box, t: Box, a: float, r: float, held: Box) -> float:
    m = measure(held, t)
    v = aspect(m)
    alpha = v / (1 - m.iou + v) if m.iou > 0.5 else 0.0
    return slow_diou(p, t, a, r, held) + (alpha * aspect(measure(p, t))) ** a


def relative(m: Slow) -> list[float]:
    both = zip(m.sides, m.target_sides, strict=True)
    return [abs(side - target) / max(side, target) for side, target in both]


def slow_siou(p: Box, t: Box, a: float, r: float, held: Box) -> float:
    """Compute SIoU with arcsin and cos, as in the paper."""
    m = measure(p, t)
    sine = min(abs(m.gap[0]), abs(m.gap[1])) / math.hypot(*m.gap)
    angle = 1 - 2 * math.sin(math.asin(sine) - math.pi / 4) ** 2
    distance = sum(1 - math.exp(-(2 - angle) * (m.gap[k] / m.outer[k]) ** 2) for k in (0, 1))
    shape = sum((1 - math.exp(-gap)) ** 4 for gap in relative(m))
    return overlap(p, t, a, r) + ((distance + shape) / 2) ** a


def slow_eiou(p: Box, t: Box, a: float, r: float, held: Box) -> float:
    m = measure(p, t)
    sides = sum((abs(m.sides[k] - m.target_sides[k]) / m.outer[k]) ** (2 * a) for k in (0, 1))
    return overlap(p, t, a, r) + centers(m) ** a + sides


def slow_focal(p: Box, t: Box, a: float, r: float, held: Box) -> float:
    return measure(held, t).iou ** 0.5 * slow_eiou(p, t, a, r, held)


def slow_shape(p: Box, t: Box, a: float, r: float, held: Box, s: float = 0.0) -> float:
    m = measure(p, t)
    w, h = (side**s for side in m.target_sides)
    weight = 2 * h / (w + h), 2 * w / (w + h)
    distance = sum(weight[k] * m.gap[k] ** 2 for k in (0, 1)) / diagonal(m)
    shape = sum((1 - math.exp(-weight[k] * relative(m)[k])) ** 4 for k in (0, 1)) / 2
    return overlap(p, t, a, r) + distance**a + shape**a


def slow_mpdiou(
    p: Box, t: Box, a: float, r: float, held: Box, size: tuple[float, float] | None = None
) -> float:
    whole = diagonal(measure(p, t)) if size is None else size[0] ** 2 + size[1] ** 2
    ends = [((p[k] - t[k]) ** 2 + (p[k + 1] - t[k + 1]) ** 2) / whole for k in (0, 2)]
    return overlap(p, t, a, r) + ends[0] ** a + ends[1] ** a


def slow_wise(p: Box, t: Box, a: float, r: float, held: Box, version: str = 'v1') -> float:
    m = measure(p, t)
    share = (m.gap[0] ** 2 + m.gap[1] ** 2) / diagonal(measure(held, t))
    loss = math.exp(share**a) * overlap(p, t, a, r)
    beta = overlap(held, t, a, r) / 0.4
    if version == 'v2':
        return beta**0.5 * loss
    return beta / (3 * 1.9 ** (beta - 3)) * loss if version == 'v3' else loss


iou, wise = iou_losses.iou_loss, partial(wise_iou.wise_iou_loss, mean_iou_loss=0.4)
FORMS: dict[str, tuple[Callable[..., Tensor], Callable[..., float]]] = {
    'linear': (partial(iou, mode='linear'), slow_linear),
    'square': (partial(iou, mode='square'), slow_square),
    'log': (iou, slow_log),
    'giou': (iou_losses.giou_loss, slow_giou),
    'diou': (iou_losses.diou_loss, slow_diou),
    'ciou': (iou_losses.ciou_loss, slow_ciou),
    'siou': (partial(shape_losses.siou_loss, neg_gamma=True), slow_siou),
    'eiou': (shape_losses.efficient_iou_loss, slow_eiou),
    'focal eiou': (partial(shape_losses.efficient_iou_loss, focal_gamma=0.5), slow_focal),
    'shape': (shape_losses.shape_iou_loss, slow_shape),
    'shape 1.5': (partial(shape_losses.shape_iou_loss, scale=1.5), partial(slow_shape, s=1.5)),
    'mpdiou': (corner_losses.mpdiou_loss, slow_mpdiou),
    'mpdiou of an image': (
        partial(corner_losses.mpdiou_loss, image_size=(640, 480)),
        partial(slow_mpdiou, size=(640, 480)),
    ),
    'wise v1': (partial(wise, version='v1'), slow_wise),
    'wise v2': (partial(wise, version='v2'), partial(slow_wise, version='v2')),
    'wise v3': (partial(wise, version='v3'), partial(slow_wise, version='v3')),
}
forms = pytest.mark.parametrize('name', FORMS)


def pairs(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Draw pairs that overlap, then as many at any distance, float64."""
    generator = torch.Generator().manual_seed(seed)
    near, target = box_pairs(generator, count)
    far = random_boxes(generator, count)
    return torch.cat([near, far]).double(), target.repeat(2, 1).double()


@forms
@pytest.mark.parametrize('power', [0.5, 1.0, 2.0, 3.0])
@pytest.mark.parametrize('ratio', [0.7, 1.0, 1.3])
def test_value_equals_the_slow_reference(name: str, power: float, ratio: float) -> None:
    fast, slow = FORMS[name]
    pred, target = pairs(60)
    expected = [
        slow(p, t, power, ratio, p) for p, t in zip(pred.tolist(), target.tolist(), strict=True)
    ]
    values = fast(pred, target, power=power, inner_ratio=ratio)
    torch.testing.assert_close(values, values.new_tensor(expected), rtol=1e-9, atol=1e-9)


@forms
@pytest.mark.parametrize(('power', 'ratio'), [(1.0, 1.0), (0.5, 0.7), (3.0, 1.3)])
def test_gradient_equals_differences_of_the_slow_reference(
    name: str, power: float, ratio: float
) -> None:
    fast, slow = FORMS[name]
    pred, target = pairs(12, seed=2)
    leaf = pred.clone().requires_grad_()
    fast(leaf, target, power=power, inner_ratio=ratio).sum().backward()
    assert leaf.grad is not None
    step, slopes = 1e-5, []
    for p, t in zip(pred.tolist(), target.tolist(), strict=True):
        for k in range(4):
            up, down = list(p), list(p)
            up[k], down[k] = p[k] + step, p[k] - step
            rise = slow(up, t, power, ratio, p) - slow(down, t, power, ratio, p)
            slopes.append(rise / (2 * step))
    expected = leaf.new_tensor(slopes).view(-1, 4)
    torch.testing.assert_close(leaf.grad, expected, rtol=1e-5, atol=1e-8)


@forms
@pytest.mark.parametrize(('power', 'ratio'), [(0.5, 0.7), (1.0, 1.0), (3.0, 1.3)])
def test_equal_boxes_have_a_loss_of_exactly_0(name: str, power: float, ratio: float) -> None:
    generator = torch.Generator().manual_seed(0)
    flat = torch.tensor([[5.0, 5, 5, 5], [0, 3, 9, 3], [1e-3, 1e-3, 2e-3, 3e-3], [0, 0, 1e4, 1e4]])
    boxes = torch.cat([random_boxes(generator, 200), flat])
    for target in (boxes, boxes.double()):
        pred = target.clone().requires_grad_()
        each = FORMS[name][0](pred, target, power=power, inner_ratio=ratio)
        assert torch.equal(each, torch.zeros_like(each))
        each.sum().backward()
        assert pred.grad is not None and torch.isfinite(pred.grad).all()


@forms
def test_ties_share_the_gradient_so_that_the_optimum_is_stationary(name: str) -> None:
    target = random_boxes(torch.Generator().manual_seed(1), 50).double()
    pred = target.clone().requires_grad_()
    FORMS[name][0](pred, target).sum().backward()
    assert pred.grad is not None and pred.grad.abs().max() < 1e-12


@forms
def test_invariant_under_shift_and_scale(name: str) -> None:
    fast = FORMS[name][0]
    if name.endswith('image'):
        pytest.skip('its distances are relative to the image')
    pred, target = pairs(50)
    shift = torch.tensor([50.0, -20.0, 50.0, -20.0], dtype=torch.float64)
    for options in ({}, {'power': 0.5, 'inner_ratio': 0.7}):
        plain = fast(pred, target, **options)
        for p, t in ((pred * 7, target * 7), (pred + shift, target + shift)):
            torch.testing.assert_close(fast(p, t, **options), plain, rtol=1e-9, atol=1e-9)


SQUARE, BESIDE = [0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 2.0]


@pytest.mark.parametrize(
    ('name', 'options', 'expected'),
    [
        ('linear', {}, 2 / 3),
        ('square', {}, 8 / 9),
        ('log', {}, math.log(3)),
        ('log', {'power': 3}, 3 * math.log(3)),
        ('linear', {'power': 3}, 26 / 27),
        # Scaled by 1/2: 1 wide, 1 apart. Scaled by 2: 4 wide, 1 apart, 12 of 20 shared.
        ('linear', {'inner_ratio': 0.5}, 1.0),
        ('linear', {'inner_ratio': 2}, 0.4),
        ('giou', {}, 2 / 3),
        ('diou', {}, 2 / 3 + 1 / 13),
        ('diou', {'power': 2}, 8 / 9 + 1 / 169),
        ('diou', {'inner_ratio': 2}, 0.4 + 1 / 13),
        ('ciou', {}, 2 / 3 + 1 / 13),
        ('siou', {}, 2 / 3 + (1 - math.exp(-2 / 9)) / 2),
        ('eiou', {}, 2 / 3 + 1 / 13),
        ('focal eiou', {}, (2 / 3 + 1 / 13) / math.sqrt(3)),
        ('shape', {}, 2 / 3 + 1 / 13),
        ('mpdiou', {}, 2 / 3 + 2 / 13),
        ('mpdiou of an image', {}, 2 / 3 + 2 / (640**2 + 480**2)),
        ('wise v1', {}, 2 / 3 * math.exp(1 / 13)),
        ('wise v2', {}, 2 / 3 * math.exp(1 / 13) * math.sqrt(5 / 3)),
        ('wise v3', {}, 2 / 3 * math.exp(1 / 13) * 5 / 9 * 1.9 ** (4 / 3)),
    ],
)
def test_values_by_hand_of_two_squares_that_overlap_by_half(
    name: str, options: dict[str, float], expected: float
) -> None:
    value = FORMS[name][0](torch.tensor(BESIDE), torch.tensor(SQUARE), **options)
    assert value.item() == pytest.approx(expected, rel=1e-6)


def test_wise_iou_uses_the_mean_of_the_call() -> None:
    pred, target = pairs(40)
    overlap_loss = iou(pred, target, 'linear')
    for version in ('v2', 'v3'):
        own = wise_iou.wise_iou_loss(pred, target, version)
        given = wise_iou.wise_iou_loss(pred, target, version, mean_iou_loss=overlap_loss.mean())
        torch.testing.assert_close(own, given, rtol=1e-12, atol=0)
    # At the outlier degree delta, the factor of v3 is 1.
    first = wise_iou.wise_iou_loss(pred, target, 'v1')
    same = wise_iou.wise_iou_loss(pred, target, 'v3', mean_iou_loss=overlap_loss / 3)
    torch.testing.assert_close(same, first, rtol=1e-12, atol=0)


def test_wise_iou_of_one_bad_pair_among_many_perfect_ones_is_bounded() -> None:
    target = random_boxes(torch.Generator().manual_seed(0), 10_000)
    pred = target.clone()
    pred[0] += 1.0
    pred.requires_grad_()
    each = wise_iou.wise_iou_loss(pred, target, 'v2')
    # The mean counts as at least 0.01, so that its factor is at most 10 and not sqrt(10,000).
    ratio = each[0] / wise_iou.wise_iou_loss(pred[:1], target[:1], 'v1')[0]
    assert 1 < ratio.item() <= 10 and not each[1:].any()


def test_shape_iou_weights_gaps_by_the_target() -> None:
    wide = torch.tensor([0.0, 0.0, 8.0, 2.0])
    along, across = torch.tensor([1.0, 0.0, 1.0, 0.0]), torch.tensor([0.0, 1.0, 0.0, 1.0])
    plain = [shape_losses.shape_iou_loss(wide + s, wide, 0) for s in (along, across)]
    scaled = [shape_losses.shape_iou_loss(wide + s, wide, 1) for s in (along, across)]
    # Weights 2 * 2 / 10 and 2 * 8 / 10, diagonals 81 + 4 and 64 + 9.
    assert (scaled[0] - plain[0]).item() == pytest.approx(-0.6 / 85, rel=1e-4)
    assert (scaled[1] - plain[1]).item() == pytest.approx(0.6 / 73, rel=1e-4)


def test_wasserstein_distance_equals_that_of_centres_and_sides() -> None:
    generator = torch.Generator().manual_seed(0)
    one, other = (random_boxes(generator, 50).double() for _ in range(2))
    for p, t, distance in zip(
        one.tolist(), other.tolist(), box_wasserstein(one, other).tolist(), strict=True
    ):
        m = measure(p, t)
        sides = sum((m.sides[k] - m.target_sides[k]) ** 2 for k in (0, 1)) / 4
        assert distance == pytest.approx(math.sqrt(m.gap[0] ** 2 + m.gap[1] ** 2 + sides))
        loss = corner_losses.nwd_loss(torch.tensor([p]), torch.tensor([t]), 20.0).item()
        assert loss == pytest.approx(1 - math.exp(-distance / 20), abs=1e-6)
    table = box_nwd(one[:, None], other[None], 20.0)
    assert table.shape == (50, 50)
    torch.testing.assert_close(table.diagonal(), box_nwd(one, other, 20.0))
    torch.testing.assert_close(
        table,
        table.new_tensor(
            [
                [
                    math.exp(
                        -math.sqrt(sum((a - b) ** 2 for a, b in zip(p, t, strict=True)) / 2) / 20
                    )
                    for t in other.tolist()
                ]
                for p in one.tolist()
            ]
        ),
    )


def test_nwd_of_equal_boxes_is_0_without_a_gradient() -> None:
    boxes = torch.cat([random_boxes(torch.Generator().manual_seed(0), 20), torch.ones(1, 4)])
    pred = boxes.clone().requires_grad_()
    each = corner_losses.nwd_loss(pred, boxes)
    each.sum().backward()
    assert pred.grad is not None and not each.any() and not pred.grad.any()
    assert torch.equal(box_nwd(boxes, boxes), torch.ones(21))


@forms
@pytest.mark.parametrize(
    ('dtype', 'mixed', 'count'),
    [
        (torch.float32, False, 20_000),
        (torch.float16, False, 6_000),
        (torch.bfloat16, False, 6_000),
        (torch.float16, True, 6_000),
        (torch.bfloat16, True, 6_000),
    ],
)
def test_finite_on_hard_pairs_for_all_options(
    name: str, dtype: torch.dtype, mixed: bool, count: int
) -> None:
    pred, target = fuzz_box_pairs(torch.Generator().manual_seed(3), count)
    target = target if mixed else target.to(dtype)
    for power in (0.5, 1.0, 3.0):
        for ratio in (0.7, 1.0, 1.3):
            leaf = pred.to(dtype, copy=True).requires_grad_()
            each = FORMS[name][0](leaf, target, power=power, inner_ratio=ratio)
            each.sum().backward()
            assert leaf.grad is not None and torch.isfinite(each).all() and (each >= 0).all()
            # The gradient fits float16 in every precision.
            assert leaf.grad.abs().max() <= 65504
