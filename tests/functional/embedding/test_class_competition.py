"""The class competition: both paths, against loops in float64, and what they hold of memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mmdet_ext.functional.embedding.competition import Competition, class_competition
from mmdet_ext.functional.numerics.directions import shortest_length, unit_vectors
from tests._helpers.memory import peak_bytes

PATHS = ('plain', 'exact')
each_path = pytest.mark.parametrize('path', PATHS)
MIB = 2**20


class Bent:
    """Others beyond their sample's threshold weigh d (d + 0.3) instead of d."""

    def __init__(self, own: Tensor) -> None:
        self.threshold = own[:, None] - 0.2

    def score(self, similarity: Tensor) -> Tensor:
        return torch.where(similarity > self.threshold, similarity * (similarity + 0.3), similarity)

    def slope(self, similarity: Tensor) -> Tensor | None:
        beyond = similarity > self.threshold
        return torch.where(beyond, similarity.mul_(2).add_(0.3), 1.0)


class Counted:
    """Others as they are, with a slope that autograd would not give; counts the calls."""

    def __init__(self, own: Tensor) -> None:
        self.calls = 0

    def score(self, similarity: Tensor) -> Tensor:
        self.calls += 1
        return similarity + 1

    def slope(self, similarity: Tensor) -> Tensor | None:
        return None


def batch(
    classes: int = 11, centres: int = 1, samples: int = 9, channels: int = 6, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Unit features, centres that are none, and labels of which several are the same."""
    generator = torch.Generator().manual_seed(seed)
    x = F.normalize(torch.randn(samples, channels, generator=generator))
    weight = 0.3 * torch.randn(classes * centres, channels, generator=generator)
    labels = torch.randint(classes, (samples,), generator=generator)
    return x, weight, labels.div(2, rounding_mode='floor')


def twin(
    x: Tensor,
    weight: Tensor,
    labels: Tensor,
    *,
    normalize_weight: bool = True,
    scale: float = 1.0,
    class_bias: Tensor | None = None,
    num_subcenters: int = 1,
    kind: str = 'softmax',
    others: Callable[[Tensor], Any] | None = None,
) -> Competition:
    """As the formulas have it, sample by sample and class by class."""
    targets, norms, weights = [], [], []
    for i, y in enumerate(labels.tolist()):
        best: list[Tensor] = []
        lengths: list[Tensor] = []
        for j in range(len(weight) // num_subcenters):
            rows = weight[j * num_subcenters : (j + 1) * num_subcenters]
            each = [(x[i] * (row / row.norm() if normalize_weight else row)).sum() for row in rows]
            k = max(range(num_subcenters), key=lambda k: each[k].item())
            best.append(each[k])
            lengths.append(rows[k].norm())
        scores = []
        for j, d in enumerate(best):
            if j == y:
                continue
            if others is not None:
                # Bent's formula: the only one with a slope of its own here.
                d = d * (d + 0.3) if d > best[y].detach() - 0.2 else d
            scores.append(scale * d + (0 if class_bias is None else class_bias[j]))
        targets.append(best[y])
        norms.append(torch.ones_like(lengths[y]) if normalize_weight else lengths[y])
        table = torch.stack(scores)
        weights.append(table.logsumexp(0) if kind == 'softmax' else F.softplus(table).sum())
    return Competition(torch.stack(targets), torch.stack(norms), torch.stack(weights))


def with_gradients(
    form: Callable[..., Competition],
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    **options: Any,
) -> tuple[Tensor, ...]:
    """The three numbers, and the gradients of a sum that weighs each of them differently."""
    leaves = [t.clone().requires_grad_() for t in (x, weight, bias) if t is not None]
    if bias is not None:
        options['class_bias'] = leaves[2]
    found = form(leaves[0], leaves[1], labels, **options)
    factors = torch.linspace(0.5, 1.5, len(x), dtype=x.dtype)
    total = (
        found.target * factors - found.center_norm * factors.square() + found.others * (2 - factors)
    ).sum()
    return (*(t.detach() for t in found), *torch.autograd.grad(total, leaves))


def assert_near(found: tuple[Tensor, ...], expected: tuple[Tensor, ...], tolerance: float) -> None:
    """Equal to a share of the largest entry, each tensor by itself."""
    assert len(found) == len(expected)
    for i, (one, other) in enumerate(zip(found, expected, strict=True)):
        assert one.shape == other.shape and one.isfinite().all(), i
        if one.numel():
            off = (one.double() - other.double()).abs().max().item()
            assert off <= tolerance * max(1, other.abs().max().item()), (i, off)


OPTIONS: dict[str, dict[str, Any]] = {
    'cosines': dict(scale=16.0),
    'dot products': dict(normalize_weight=False),
    'scaled dot products': dict(normalize_weight=False, scale=3.0),
    'thresholds': dict(kind='sigmoid', scale=16.0),
    'rescored': dict(scale=16.0, others=Bent),
    'rescored thresholds': dict(kind='sigmoid', scale=4.0, others=Bent, normalize_weight=False),
}
each_option = pytest.mark.parametrize('options', OPTIONS.values(), ids=OPTIONS)


@each_option
@pytest.mark.parametrize('biased', [False, True])
@pytest.mark.parametrize('centres', [1, 2, 3])
def test_both_paths_are_the_loops_in_float64(
    options: dict[str, Any], biased: bool, centres: int
) -> None:
    x, weight, labels = batch(centres=centres)
    bias = torch.linspace(-1, 1, 11) if biased else None
    expected = with_gradients(
        twin,
        x.double(),
        weight.double(),
        None if bias is None else bias.double(),
        labels,
        num_subcenters=centres,
        **options,
    )
    for path in PATHS:
        found = with_gradients(
            class_competition,
            x,
            weight,
            bias,
            labels,
            num_subcenters=centres,
            path=path,
            chunk=4,
            **options,
        )
        assert all(t.dtype == torch.float32 for t in found)
        assert_near(found, expected, 1e-5)


@each_option
@pytest.mark.parametrize('centres', [1, 3])
@pytest.mark.parametrize('chunk', [1, 2, 5, 7, 10, 15, 30, 31, None])
def test_chunks_that_do_and_do_not_divide_the_classes(
    options: dict[str, Any], centres: int, chunk: int | None
) -> None:
    x, weight, labels = batch(30, centres, samples=17, seed=3)
    labels[:4] = torch.tensor([0, 29, 15, 15])
    bias = torch.linspace(-2, 1, 30)
    plain, exact = (
        with_gradients(
            class_competition,
            x,
            weight,
            bias,
            labels,
            num_subcenters=centres,
            path=path,
            chunk=chunk,
            **options,
        )
        for path in PATHS
    )
    assert_near(exact, plain, 1e-5)


@pytest.mark.parametrize(
    ('samples', 'classes', 'centres'),
    [
        (1, 1, 1),
        (1, 1, 3),
        (5, 1, 1),
        (5, 1, 2),
        (1, 20, 1),
        (1, 2, 2),
        (0, 1, 1),
        (0, 20, 1),
        (0, 20, 3),
    ],
)
@each_option
def test_smallest_cases(options: dict[str, Any], samples: int, classes: int, centres: int) -> None:
    x, weight, labels = batch(classes, centres, samples)
    bias = torch.linspace(-2, 1, classes)
    plain, exact = (
        with_gradients(
            class_competition,
            x,
            weight,
            bias,
            labels,
            num_subcenters=centres,
            path=path,
            chunk=3,
            **options,
        )
        for path in PATHS
    )
    assert_near(exact, plain, 1e-5)
    if not samples:
        assert all(not t.any() for t in plain)
    if classes == 1:
        # No others: their weight is nothing, and the loss of a softmax over one class is 0.
        if options.get('kind') == 'sigmoid':
            assert not plain[2].any()
        else:
            assert (plain[2] < -1e38).all() and not F.softplus(plain[2] + 1e3).any()


def test_large_scores_keep_their_logarithm() -> None:
    """Sums of exponentials of 1000 leave float32 both ways; chunks raise the highest late."""
    weight = torch.tensor([[-1000.0], [-990.0], [3.0], [1000.0], [998.0], [-5.0]])
    x = torch.tensor([[1.0], [-1.0]])
    labels = torch.tensor([2, 2])
    expected = [1000 + math.log1p(math.exp(-2)), 1000 + math.log1p(math.exp(-10))]
    for path in PATHS:
        found = with_gradients(
            class_competition, x, weight, None, labels, path=path, chunk=2, normalize_weight=False
        )
        assert found[2].tolist() == pytest.approx(expected, abs=1e-4)
        assert all(t.isfinite().all() for t in found)


@each_path
@pytest.mark.parametrize('scale', [64.0, 1e4])
def test_own_class_far_above_the_others_does_not_overflow(path: Any, scale: float) -> None:
    """The exact path computes the own class's share as any other's, and then takes it out."""
    weight = torch.eye(6).repeat_interleave(2, 0) - 0.5
    x = unit_vectors(weight[[0, 4, 4]])[0]
    for kind in ('softmax', 'sigmoid'):
        for others in (None, Bent):
            found = with_gradients(
                class_competition,
                x,
                weight,
                torch.full((6,), -scale),
                torch.tensor([0, 2, 2]),
                path=path,
                scale=scale,
                kind=kind,
                others=others,
                num_subcenters=2,
                chunk=2,
            )
            assert all(t.isfinite().all() for t in found)


@each_path
def test_others_are_rescored_without_the_own_class_and_with_the_slope_told(path: Any) -> None:
    x, weight, labels = batch()
    made: list[Counted] = []

    def others(own: Tensor) -> Counted:
        assert not own.requires_grad and own.shape == labels.shape
        made.append(Counted(own))
        return made[-1]

    plain = with_gradients(class_competition, x, weight, None, labels, path=path, chunk=3)
    found = with_gradients(
        class_competition, x, weight, None, labels, path=path, chunk=3, others=others
    )
    # One more in each score is one more in the logarithm of their sum; slopes do not change.
    assert_near(found, (plain[0], plain[1], plain[2] + 1, *plain[3:]), 1e-5)
    # One for the batch. Four chunks, again in the backward pass.
    assert len(made) == 1 and made[0].calls == (1 if path == 'plain' else 8)


@each_path
def test_nearest_sub_centre_alone_has_a_gradient(path: Any) -> None:
    weight: Any = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    weight.requires_grad_()
    x = torch.tensor([[0.8, 0.6]])
    found = class_competition(x, weight, torch.tensor([0]), num_subcenters=2, path=path)
    assert found.target.tolist() == pytest.approx([0.8])
    assert found.others.tolist() == pytest.approx([-0.6])
    (found.target + found.others).sum().backward()
    # d<x, v> / dw = x - <x, v> v for centres of length 1.
    assert weight.grad.tolist() == [
        pytest.approx([0.0, 0.6]),
        [0, 0],
        [0, 0],
        pytest.approx([0.8, 0.0]),
    ]


@each_path
@pytest.mark.parametrize('centres', [2, 3])
def test_equal_sub_centres_share_nothing(path: Any, centres: int) -> None:
    """Of centres that are the same, one has the gradient of a class with one centre."""
    x, weight, labels = batch()
    alone = with_gradients(class_competition, x, weight, None, labels, path=path, scale=16.0)
    twins = with_gradients(
        class_competition,
        x,
        weight.repeat_interleave(centres, 0),
        None,
        labels,
        path=path,
        scale=16.0,
        num_subcenters=centres,
        chunk=4,
    )
    assert_near(twins[:4], alone[:4], 1e-5)
    assert_near((twins[4].view(11, centres, -1).sum(1),), (alone[4],), 1e-5)


@pytest.mark.parametrize('seed', range(4))
def test_paths_agree_on_many_shapes(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)

    def draw(high: int) -> int:
        return int(torch.randint(1, high, (), generator=generator))

    for _ in range(40):
        classes, centres, samples = draw(70), draw(4), draw(20)
        x, weight, labels = batch(classes, centres, samples, draw(12) + 2, seed)
        options = dict(
            num_subcenters=centres,
            chunk=draw(90),
            scale=float(draw(64)),
            kind=('softmax', 'sigmoid')[draw(3) - 1],
            others=(None, Bent)[draw(3) - 1],
            normalize_weight=bool(draw(3) - 1),
        )
        bias = torch.randn(classes, generator=generator)
        plain, exact = (
            with_gradients(class_competition, x, weight, bias, labels, path=path, **options)
            for path in PATHS
        )
        assert_near(exact, plain, 1e-5)


# --- Edges of float -------------------------------------------------------------------------------


@each_path
def test_zero_centres_and_features_have_finite_gradients(path: Any) -> None:
    x, weight, labels = batch()
    x[0] = 0
    weight[labels[0]] = weight[labels[1]] = weight[10] = 0
    for options in (dict(scale=64.0), dict(normalize_weight=False), dict(kind='sigmoid')):
        found = with_gradients(class_competition, x, weight, None, labels, path=path, **options)
        assert all(t.isfinite().all() for t in found)
        # A zero centre is far from none: it has a gradient, so that it can leave its place.
        assert found[4][10].any()


@pytest.mark.parametrize(
    'length', [1e-30, 1e-20, 1e-15, 1e-10, 1e-6, 1e-3, 1.0, 1e4, 1e15, 1e20, 1e30]
)
def test_length_of_a_centre_changes_its_own_gradient_alone(length: float) -> None:
    x, weight, labels = batch()
    usual = with_gradients(class_competition, x, unit_vectors(weight)[0], None, labels, scale=16.0)
    for path in PATHS:
        found = with_gradients(
            class_competition,
            x,
            length * unit_vectors(weight)[0],
            None,
            labels,
            scale=16.0,
            path=path,
        )
        assert_near(found[:4], usual[:4], 2e-5)
        # 1 / |w|; of centres shorter than 1e-4 that of one of this length.
        assert_near((found[4] * max(length, 1e-4),), usual[4:], 2e-5)


@each_path
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
def test_other_precisions_are_computed_in_float32(path: Any, dtype: torch.dtype) -> None:
    x, weight, labels = batch()
    x, weight = x.to(dtype), weight.to(dtype)
    bias = torch.linspace(-1, 1, 11, dtype=dtype)
    expected = with_gradients(
        class_competition, x.float(), weight.float(), bias.float(), labels, path=path, scale=64.0
    )
    for context in (torch.bfloat16, torch.float16, None):

        def form(*tensors: Tensor, **options: Any) -> Competition:
            with torch.autocast('cpu', dtype=context, enabled=context is not None):  # noqa: B023
                return class_competition(*tensors, **options)

        found = with_gradients(form, x, weight, bias, labels, path=path, scale=64.0)
        assert [t.dtype for t in found] == [torch.float32] * 3 + [dtype] * 3
        for one, other in zip(found, expected, strict=True):
            assert one.equal(other.to(one.dtype))


@each_path
@each_option
@pytest.mark.parametrize('centres', [1, 2])
def test_double_precision_is_kept(path: Any, options: dict[str, Any], centres: int) -> None:
    x, weight, labels = batch(centres=centres)
    x, weight = x.double(), weight.double()
    bias = torch.linspace(-1, 1, 11, dtype=torch.float64)
    expected = with_gradients(twin, x, weight, bias, labels, num_subcenters=centres, **options)
    found = with_gradients(
        class_competition,
        x,
        weight,
        bias,
        labels,
        num_subcenters=centres,
        path=path,
        chunk=4,
        **options,
    )
    assert all(t.dtype == torch.float64 for t in found)
    assert_near(found, expected, 1e-8)
    # One such input is enough; gradients are of their inputs' types.
    for mixed in ((x.float(), weight), (x, weight.float())):
        part = with_gradients(
            class_competition, *mixed, None, labels, path=path, scale=2.0, num_subcenters=centres
        )
        assert [t.dtype for t in part] == [torch.float64] * 3 + [t.dtype for t in mixed]


def test_gradients_are_those_of_differences() -> None:
    x, weight, labels = (t[:4] for t in batch(classes=4, samples=4))
    leaves = [t.double().requires_grad_() for t in (x, weight)]
    labels = torch.tensor([0, 3, 1, 1])
    for path in PATHS:
        assert torch.autograd.gradcheck(
            lambda x, w: class_competition(x, w, labels, scale=2.0, path=path, chunk=3), leaves
        )  # noqa: B023


@each_path
def test_centres_of_all_lengths_together(path: Any) -> None:
    """In one chunk, behind features that are long or short themselves."""
    x, weight, labels = batch()
    unit = unit_vectors(weight)[0]
    lengths = torch.logspace(-30, 20, 11)[:, None]
    for size in (1e-5, 1.0, 1e5):
        usual = with_gradients(class_competition, size * x, unit, None, labels, path='plain')
        found = with_gradients(class_competition, size * x, lengths * unit, None, labels, path=path)
        assert_near(found[:4], usual[:4], 2e-5)
        assert_near((found[4] * lengths.clamp(min=1e-4),), usual[4:], 2e-5)


def test_gradient_beyond_float_is_no_nan() -> None:
    weight = torch.tensor([[3e-30, 4e-30], [0.0, 1.0]])
    x = torch.tensor([[1e30, 2e30]])
    found = with_gradients(class_competition, x, weight, None, torch.tensor([0]), path='exact')
    assert all(t.isfinite().all() for t in found)


def test_backward_under_autocast_is_of_full_precision() -> None:
    x, weight, labels = batch()
    leaf = weight.clone().requires_grad_()
    expected = with_gradients(class_competition, x, weight, None, labels, scale=64.0)
    found = class_competition(x, leaf, labels, scale=64.0)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        factors = torch.linspace(0.5, 1.5, len(x))
        (found.target * factors + found.others * (2 - factors)).sum().backward()
    torch.testing.assert_close(leaf.grad, expected[4], rtol=1e-6, atol=1e-7)


def test_unit_vectors_of_any_length() -> None:
    direction = F.normalize(torch.randn(1, 7, dtype=torch.float64), dim=1)
    for length in (1e-36, 1e-30, 1e-20, 1e-4, 1.0, 1e20, 1e30, 1e37):
        x = (length * direction).float().requires_grad_()
        unit, norm = unit_vectors(x)
        torch.testing.assert_close(unit.double(), direction, rtol=0, atol=2e-7)
        assert norm.item() == pytest.approx(length, rel=1e-6)
        target = torch.linspace(-1, 1, 7)
        (grad,) = torch.autograd.grad((unit * target).sum() + 0.5 * norm.sum(), x)
        across = target.double() - (target.double() * direction).sum() * direction
        expected = across / max(length, 1e-4) + 0.5 * direction
        torch.testing.assert_close(
            grad.double(), expected, rtol=1e-5, atol=2e-6 / max(length, 1e-4)
        )


def test_unit_vectors_in_double_precision_and_from_another_length_on() -> None:
    x = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    assert unit_vectors(x)[0].dtype == torch.float32
    assert torch.autograd.gradcheck(lambda x: unit_vectors(x, dtype=torch.float64), x)
    short = (0.25 * F.normalize(torch.randn(1, 5))).requires_grad_()
    usual, bounded = (
        torch.autograd.grad(unit_vectors(short, shortest=s)[0][0, 0], short)[0] for s in (0.2, 1)
    )
    torch.testing.assert_close(bounded, 0.25 * usual, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ('dtype', 'slope', 'expected'),
    [
        (torch.float16, 64.0, 0.0625),
        (torch.float16, 1e-3, 1e-4),
        (torch.bfloat16, 64.0, 1e-4),
        (torch.float32, 1e9, 1e-4),
        (torch.float64, 64.0, 1e-4),
    ],
)
def test_float16_alone_needs_longer_vectors(
    dtype: torch.dtype, slope: float, expected: float
) -> None:
    assert shortest_length(dtype, slope, 1024.0) == expected


def test_unit_vectors_of_nothing() -> None:
    x = torch.zeros(3, 4, requires_grad=True)
    unit, norm = unit_vectors(x)
    assert not unit.any() and not norm.any()
    (grad,) = torch.autograd.grad(unit.sum() + norm.sum(), x)
    assert grad.equal(torch.full((3, 4), 1e4))
    for shape in ((0, 4), (3, 0), (0, 0)):
        empty = torch.zeros(shape, requires_grad=True)
        unit, norm = unit_vectors(empty)
        (unit.sum() + norm.sum()).backward()
        assert unit.shape == shape and norm.shape == shape[:1] and empty.grad is not None
    # Denormal numbers have a direction, too.
    assert unit_vectors(torch.tensor([[3e-44, 4e-44]]))[0][0].tolist() == pytest.approx(
        [0.6, 0.8], abs=0.02
    )


# --- What is computed and held --------------------------------------------------------------------


@pytest.mark.parametrize('wanted', [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (0, 1, 1)])
@pytest.mark.parametrize('normalize', [True, False])
def test_only_the_gradients_asked_for(wanted: tuple[int, ...], normalize: bool) -> None:
    x, weight, labels = batch()
    tensors: Any = [x, weight, torch.linspace(-1, 1, 11)]
    options: Any = dict(scale=8.0, chunk=4, normalize_weight=normalize)
    whole = with_gradients(class_competition, x, weight, tensors[2], labels, **options)[3:]
    leaves = [t.clone().requires_grad_(bool(w)) for t, w in zip(tensors, wanted, strict=True)]
    found = class_competition(leaves[0], leaves[1], labels, class_bias=leaves[2], **options)
    factors = torch.linspace(0.5, 1.5, len(x))
    (
        found.target * factors - found.center_norm * factors.square() + found.others * (2 - factors)
    ).sum().backward()
    for leaf, expected, w in zip(leaves, whole, wanted, strict=True):
        assert (leaf.grad is not None) == bool(w)
        if w:
            torch.testing.assert_close(leaf.grad, expected, rtol=1e-6, atol=1e-7)


def test_frozen_centres_cost_no_gradient_of_their_size() -> None:
    x, weight, labels = batch(20_000, 1, 32, 64)
    x.requires_grad_()
    assert weight.nbytes > 4 * MIB
    assert peak_bytes(lambda: cost(x, weight, labels)) < 3 * MIB


def cost(x: Tensor, weight: Tensor, labels: Tensor, **options: Any) -> None:
    found = class_competition(x, weight, labels, scale=64.0, **options)
    if found.others.requires_grad:
        (found.others - found.target).sum().backward()


@pytest.mark.parametrize('options', [{}, {'others': Bent}, {'kind': 'sigmoid'}], ids=str)
def test_memory_does_not_grow_with_the_classes(options: dict[str, Any]) -> None:
    held = []
    for classes in (20_000, 80_000):
        x, weight, labels = batch(classes, 1, 64, 32)
        x.requires_grad_(), weight.requires_grad_()
        # Beyond the gradients, and one number a centre, its length.
        own = x.nbytes + weight.nbytes + 4 * classes
        held.append(peak_bytes(lambda: cost(x, weight, labels, **options)) - own)  # noqa: B023
    chunk = 4 * 2**18
    assert max(held) < (6 if 'others' in options else 4) * chunk
    assert held[1] - held[0] < 0.1 * MIB
    # A table alone has 4.9 MiB at 20,000 classes, 19.5 at 80,000; the plain path holds several.
    plain = peak_bytes(lambda: cost(x, weight, labels, path='plain', **options)) - own
    assert plain > 10 * max(held)


def test_memory_without_gradients_is_that_of_a_chunk() -> None:
    x, weight, labels = batch(50_000, 1, 64, 32)
    weight.requires_grad_()
    with torch.no_grad():
        held = peak_bytes(lambda: cost(x, weight, labels))
        assert held < 2.5 * 4 * 2**18 + 4 * 50_000
    assert weight.grad is None


def test_second_forward_before_the_first_backward() -> None:
    x, weight, labels = batch()
    other, _, other_labels = batch(seed=5)
    leaf = weight.clone().requires_grad_()
    first = class_competition(x, leaf, labels, scale=8.0, others=Bent, chunk=4)
    second = class_competition(other, leaf, other_labels, scale=8.0, others=Bent, chunk=4)
    (first.others.sum() + second.others.sum()).backward()
    apart: list[Any] = []
    for features, y in ((x, labels), (other, other_labels)):
        alone = weight.clone().requires_grad_()
        class_competition(features, alone, y, scale=8.0, others=Bent).others.sum().backward()
        apart.append(alone.grad)
    torch.testing.assert_close(leaf.grad, apart[0] + apart[1], rtol=1e-5, atol=1e-6)


def test_centres_changed_before_the_backward_pass_are_refused() -> None:
    x, weight, labels = batch()
    weight.requires_grad_()
    found = class_competition(x, weight, labels)
    with torch.no_grad():
        weight += 1
    with pytest.raises(RuntimeError, match='modified by an inplace operation'):
        found.others.sum().backward()


@pytest.mark.parametrize('reentrant', [False, True])
def test_under_checkpointing(reentrant: bool) -> None:
    from torch.utils.checkpoint import checkpoint

    x, weight, labels = batch()
    grads = []
    for run in (
        lambda form, *args: form(*args),
        lambda form, *args: checkpoint(form, *args, use_reentrant=reentrant),
    ):
        leaves = x.clone().requires_grad_(), weight.clone().requires_grad_()
        target, _, others = run(
            lambda *args: tuple(class_competition(*args, scale=8.0, chunk=4)), *leaves, labels
        )
        (others - target).sum().backward()
        grads.append([leaf.grad for leaf in leaves])
    assert all(one.equal(other) and one.any() for one, other in zip(*grads, strict=True))


def test_features_that_are_views_and_transposes() -> None:
    x, weight, labels = batch()
    expected = with_gradients(class_competition, x, weight, None, labels)
    wide = torch.stack([x.t(), x.t()], 2)[..., 0].t()
    assert not wide.is_contiguous()
    found = with_gradients(
        class_competition, wide, weight.t().contiguous().t(), None, labels, chunk=4
    )
    assert_near(found, expected, 1e-6)


# --- Errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (
            dict(labels=torch.tensor([0, 11])),
            'labels must be from 0 to 10 .*from 0 to 11.*num_classes',
        ),
        (dict(labels=torch.tensor([-1, 3])), 'values from -1 to 3'),
        (
            dict(labels=torch.zeros(3, dtype=torch.long)),
            r'labels must be integers, one per feature: .2,',
        ),
        (dict(labels=torch.zeros(2)), 'labels must be integers.*torch.float32'),
        (dict(features=torch.zeros(2, 5)), r'with one D, got .2, 5. and .11, 6.'),
        (dict(features=torch.zeros(2, 6, 1)), 'features must be'),
        (dict(num_subcenters=2), 'num_subcenters is 2: .*divide the 11 rows'),
        (dict(num_subcenters=0), 'num_subcenters is 0'),
        (dict(class_bias=torch.zeros(10)), r'class_bias must be \(11,\), got \(10,\)'),
        (dict(kind='hinge'), "kind must be .*'softmax', 'sigmoid'.*'hinge'"),
        (dict(path='fast'), "path must be .*'fast'"),
        (dict(chunk=0), 'chunk must be at least 1, got 0'),
    ],
)
def test_what_does_not_fit_is_told(change: dict[str, Any], message: str) -> None:
    x, weight, _ = batch(samples=2)
    arguments: Any = dict(features=x, weight=weight, labels=torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=message):
        class_competition(**{**arguments, **change})
