"""Centre, contrastive and triplet losses: by hand, and against slow twins from the papers."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from mmdet_ext.functional.embedding.distances import (
    center_loss,
    center_shift,
    class_mean_center_loss,
    contrastive_loss,
    pairwise_distance,
    shifted_centers,
)
from mmdet_ext.functional.embedding.triplet import triplet_loss

DISTANCES = ['euclidean', 'squared_euclidean', 'cosine']
MININGS = ['batch_hard', 'semi_hard', 'batch_all']
each_distance = pytest.mark.parametrize('distance', DISTANCES)
each_mining = pytest.mark.parametrize('mining', MININGS)
each_margin = pytest.mark.parametrize('soft_margin', [False, True])


def batch(seed: int, samples: int = 12, dim: int = 5, identities: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(samples, dim, generator=generator, dtype=torch.float64)
    return features, torch.randint(identities, (samples,), generator=generator)


# --- Slow twins: loops over plain numbers -----------------------------------------------------


def slow_distance(a: list[float], b: list[float], distance: str, normalize: bool) -> float:
    if distance == 'cosine':
        return 1 - sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)
    if normalize:
        a = [x / math.hypot(*a) for x in a]
        b = [x / math.hypot(*b) for x in b]
    plain = math.dist(a, b)
    return plain if distance == 'euclidean' else plain**2


def slow_contrastive(
    features: Tensor, labels: Tensor, margin: float, distance: str, normalize: bool, balance: bool
) -> tuple[float, int, int, int]:
    x, y = features.tolist(), labels.tolist()
    pull, push, close = [], [], 0
    for i, j in itertools.combinations(range(len(x)), 2):
        d = slow_distance(x[i], x[j], distance, normalize)
        if y[i] == y[j]:
            pull.append(d**2 / 2)
        else:
            push.append(max(0, margin - d) ** 2 / 2)
            close += d < margin
    if balance:
        loss = sum(sum(part) / len(part) for part in (pull, push) if part) / 2
    else:
        loss = sum(pull + push) / max(1, len(pull + push))
    return loss, len(pull), len(push), close


def slow_triplet(
    features: Tensor,
    labels: Tensor,
    margin: float,
    mining: str,
    distance: str,
    normalize: bool,
    soft_margin: bool,
) -> tuple[float, int, int, int]:
    """One anchor after the other, one positive after the other, one negative after the other."""
    x, y = features.tolist(), labels.tolist()
    indices = range(len(x))
    d = [[slow_distance(a, b, distance, normalize) for b in x] for a in x]

    def cost(p: float, n: float) -> float:
        return math.log1p(math.exp(p - n)) if soft_margin else max(0.0, p - n + margin)

    costs: list[float] = []
    easy = semi_hard = hard = 0
    for a in indices:
        positives = [d[a][p] for p in indices if p != a and y[p] == y[a]]
        negatives = [d[a][n] for n in indices if y[n] != y[a]]
        if not positives or not negatives:
            continue
        if mining == 'batch_hard':
            costs.append(cost(max(positives), min(negatives)))
        for p in positives:
            if mining == 'semi_hard':
                farther = [n for n in negatives if n > p]
                costs.append(cost(p, min(farther) if farther else max(negatives)))
            for n in negatives:
                hard += n <= p
                semi_hard += p < n < p + margin
                easy += p < n and n >= p + margin
                if mining == 'batch_all' and cost(p, n) > 0:
                    costs.append(cost(p, n))
    return sum(costs) / max(1, len(costs)), easy, semi_hard, hard


# --- Distances --------------------------------------------------------------------------------


@each_distance
@pytest.mark.parametrize('normalize', [False, True])
def test_distances_against_the_slow_twin(distance: Any, normalize: bool) -> None:
    x, _ = batch(0)
    expected = [[slow_distance(a, b, distance, normalize) for b in x.tolist()] for a in x.tolist()]
    table = pairwise_distance(x, distance, normalize)
    torch.testing.assert_close(
        table, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-12
    )
    assert table.diagonal().tolist() == [0.0] * len(x)
    assert table.equal(table.T)


def test_near_samples_far_from_the_origin_keep_their_digits() -> None:
    # By |a|^2 + |b|^2 - 2ab, float32 has 0 or 8 here.
    x = torch.full((2, 4), 4096.0)
    x[1] += 0.5
    assert pairwise_distance(x)[0, 1].item() == 1.0


def test_distances_in_parts_are_those_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    x, _ = batch(1)
    x.requires_grad_()
    whole = pairwise_distance(x)
    (gradient,) = torch.autograd.grad(whole.square().sum(), x)
    monkeypatch.setattr('mmdet_ext.functional.embedding.distances.CHUNK_ELEMENTS', 5 * x.numel())
    parts = pairwise_distance(x)
    assert parts.equal(whole)
    (in_parts,) = torch.autograd.grad(parts.square().sum(), x)
    torch.testing.assert_close(in_parts, gradient, rtol=1e-13, atol=1e-13)


def test_the_cosine_of_zero_and_short_features() -> None:
    x = torch.tensor([[0.0, 0.0], [0.0, 0.0], [3.0, 4.0], [-3.0, -4.0], [6e-8, 0.0]])
    x.requires_grad_()
    table = pairwise_distance(x, 'cosine')
    torch.testing.assert_close(table[0, :4], torch.tensor([0.0, 0.0, 0.5, 0.5]))
    torch.testing.assert_close(table[2, :4], torch.tensor([0.5, 0.5, 0.0, 2.0]))
    (gradient,) = torch.autograd.grad(table.mean(), x)
    assert gradient.half().isfinite().all()


# --- Centres ----------------------------------------------------------------------------------


def test_center_losses_against_the_formulae() -> None:
    x, y = batch(2)
    centers = torch.randn(4, 5, dtype=torch.float64)
    squares = [
        sum((a - b) ** 2 for a, b in zip(row, centers[label].tolist(), strict=True))
        for row, label in zip(x.tolist(), y.tolist(), strict=True)
    ]
    torch.testing.assert_close(center_loss(x, y, centers), torch.tensor(squares).double() / 2)
    share = [math.sqrt(s) / y.tolist().count(k) for s, k in zip(squares, y.tolist(), strict=True)]
    torch.testing.assert_close(class_mean_center_loss(x, y, centers), torch.tensor(share).double())


@pytest.mark.parametrize('loss', [center_loss, class_mean_center_loss])
def test_center_gradients(loss: Callable[..., Tensor]) -> None:
    x, y = batch(3)
    centers = torch.randn(4, 5, dtype=torch.float64)
    x.requires_grad_(), centers.requires_grad_()
    assert torch.autograd.gradcheck(lambda a, c: loss(a, y, c), (x, centers))
    if loss is center_loss:
        (gradient,) = torch.autograd.grad(loss(x, y, centers).sum(), x)
        torch.testing.assert_close(gradient, (x - centers[y]).detach(), rtol=0, atol=0)


@pytest.mark.parametrize('loss', [center_loss, class_mean_center_loss])
def test_at_the_center_all_is_zero_and_finite(loss: Callable[..., Tensor]) -> None:
    centers = torch.tensor([[1.0, 2.0]], requires_grad=True)
    x = torch.tensor([[1.0, 2.0], [1.0, 2.0]], requires_grad=True)
    value = loss(x, torch.tensor([0, 0]), centers)
    value.sum().backward()
    assert value.tolist() == [0.0, 0.0]
    assert x.grad is not None and x.grad.abs().max() == 0
    assert centers.grad is not None and centers.grad.abs().max() == 0


def test_center_update_against_the_formula() -> None:
    x, y = batch(4, identities=3)
    y[y == 1] = 4
    centers = torch.randn(6, 5, dtype=torch.float64)
    expected = centers.tolist()
    for j in range(6):
        members = [row for row, label in zip(x.tolist(), y.tolist(), strict=True) if label == j]
        for k in range(5):
            delta = sum(centers[j, k].item() - row[k] for row in members) / (1 + len(members))
            expected[j][k] -= 0.3 * delta
    classes = torch.arange(6)
    moved = shifted_centers(centers, *center_shift(x, y, centers, classes), alpha=0.3)
    torch.testing.assert_close(moved, torch.tensor(expected).double())
    assert moved[1].equal(centers[1])  # nobody came
    # Parts of a batch add up.
    parts = [center_shift(x[i::2], y[i::2], centers, y.unique()) for i in range(2)]
    shift, count = (a + b for a, b in zip(*parts, strict=True))
    some = shifted_centers(centers[y.unique()], shift, count, alpha=0.3)
    torch.testing.assert_close(some, moved[y.unique()])


@pytest.mark.parametrize('wrong', [math.inf, math.nan])
def test_what_is_not_finite_moves_no_center(wrong: float) -> None:
    x = torch.tensor([[wrong, 1.0], [2.0, 2.0]])
    centers = torch.ones(2, 2)
    shift, count = center_shift(x, torch.tensor([0, 1]), centers, torch.arange(2))
    moved = shifted_centers(centers, shift, count, alpha=1.0)
    assert moved.tolist() == [[1.0, 1.0], [1.5, 1.5]]


# --- Pairs ------------------------------------------------------------------------------------


@each_distance
@pytest.mark.parametrize('normalize', [False, True])
@pytest.mark.parametrize('balance', [False, True])
def test_contrastive_against_the_slow_twin(distance: Any, normalize: bool, balance: bool) -> None:
    for seed, margin in enumerate((0.2, 1.0, 3.0)):
        x, y = batch(seed)
        result = contrastive_loss(x, y, margin, distance, normalize, balance)
        expected = slow_contrastive(x, y, margin, distance, normalize, balance)
        assert [part.item() for part in result] == pytest.approx(expected, rel=1e-10)
        assert result.loss > 0


@each_distance
@pytest.mark.parametrize('balance', [False, True])
def test_contrastive_gradient(distance: Any, balance: bool) -> None:
    x, y = batch(6, samples=7)
    x.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda a: contrastive_loss(a, y, 2.0, distance, balance=balance).loss, x
    )


def test_balanced_pairs_do_not_drown_each_other() -> None:
    # One positive pair at 2, and 2 n negatives at or beyond the margin.
    for n in (1, 50):
        x = torch.tensor([[0.0], [2.0], *([[9.0]] * n)])
        y = torch.tensor([0, 0, *range(1, n + 1)])
        far = sum(range(n))  # pairs at distance 0 among the others cost 1/2 each
        plain = contrastive_loss(x, y).loss.item()
        balanced = contrastive_loss(x, y, balance=True).loss.item()
        assert plain == pytest.approx((2 + far / 2) / (1 + 2 * n + far), rel=1e-6)
        assert balanced == pytest.approx((2 + far / 2 / (2 * n + far)) / 2, rel=1e-6)


# --- Triplets ---------------------------------------------------------------------------------


@each_mining
@each_distance
@each_margin
@pytest.mark.parametrize('normalize', [False, True])
def test_triplets_against_the_slow_twin(
    mining: Any, distance: Any, normalize: bool, soft_margin: bool
) -> None:
    for seed, margin in enumerate((0, 0.3, 1, 4.0)):
        x, y = batch(seed, samples=14, identities=5)
        result = triplet_loss(x, y, margin, mining, distance, normalize, soft_margin)
        expected = slow_triplet(x, y, margin, mining, distance, normalize, soft_margin)
        assert [part.item() for part in result] == pytest.approx(expected, rel=1e-10)
        assert sum(expected[1:]) > 50


@each_mining
@each_margin
def test_ties_against_the_slow_twin(mining: Any, soft_margin: bool) -> None:
    """Whole numbers: equal distances, negatives at p and at p + margin, duplicates."""
    for seed in range(40):
        x, y = batch(seed, samples=9, dim=1, identities=3)
        x = (3 * x).round()
        result = triplet_loss(x, y, seed % 3, mining, soft_margin=soft_margin)
        expected = slow_triplet(x, y, seed % 3, mining, 'euclidean', False, soft_margin)
        assert [part.item() for part in result] == pytest.approx(expected, rel=1e-12)


def test_semi_hard_by_hand() -> None:
    y = torch.tensor([0, 0, 1, 2])
    # Anchor 0 and its positive at 1; from 1 the positive is at 1 as well.
    for places, expected in {
        # 0: 1.2 is the nearest farther one, 0.5 the harder; 1: 0.2 and 0.5 are harder.
        (0.5, 1.2): ((1 - 1.2 + 0.3) + (1 - 0.5 + 0.3)) / 2,
        # Both are beyond the margin for 0, 1.3 at its edge; 1: all are farther.
        (5.0, 2.4): 0.0,
        # None is farther for either: the farthest counts.
        (0.5, 0.9): ((1 - 0.9 + 0.3) + (1 - 0.5 + 0.3)) / 2,
    }.items():
        x = torch.tensor([[0.0], [1.0], *([place] for place in places)])
        assert triplet_loss(x, y, mining='semi_hard').loss.item() == pytest.approx(expected)


@each_mining
@each_distance
@each_margin
def test_triplet_gradient(mining: Any, distance: Any, soft_margin: bool) -> None:
    x, y = batch(8, samples=9, identities=3)
    x.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda a: triplet_loss(a, y, 0.5, mining, distance, soft_margin=soft_margin).loss, x
    )


def test_soft_triplets_in_parts_are_those_in_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, y = batch(9, samples=40)
    whole = triplet_loss(x, y, mining='batch_all', soft_margin=True).loss
    monkeypatch.setattr('mmdet_ext.functional.embedding.triplet.CHUNK_ELEMENTS', 200)
    parts = triplet_loss(x, y, mining='batch_all', soft_margin=True).loss
    torch.testing.assert_close(parts, whole, rtol=1e-13, atol=0)


@pytest.mark.parametrize(
    'options',
    [
        {'mining': 'batch_hard'},
        {'mining': 'semi_hard'},
        {'mining': 'batch_all'},
        {'mining': 'batch_all', 'soft_margin': True},
    ],
    ids=str,
)
def test_many_triplets_hold_no_table_of_triplets(options: dict[str, Any]) -> None:
    samples = 512
    x = torch.randn(samples, 16, requires_grad=True)
    y = torch.arange(samples) % 128
    kept: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor.untyped_storage().nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = triplet_loss(x, y, **options)
    assert max(kept) <= 8 * samples**2  # one table of N x N in double precision
    result.loss.backward()
    assert x.grad is not None and x.grad.isfinite().all()
    assert sum(int(part) for part in result[1:]) == samples * 3 * (samples - 4)


# --- All --------------------------------------------------------------------------------------

Loss = Callable[[Tensor, Tensor], tuple[Tensor, ...]]


def centers_at(features: Tensor, labels: Tensor) -> Tensor:
    """Centres for any labels: the first feature, the zero and a far one among them."""
    centers = torch.zeros(8, features.shape[1], dtype=torch.float32)
    centers[0] = features[0].detach().float() if len(features) else 0
    centers[1] = 100
    return centers


def all_losses() -> dict[str, Loss]:
    losses: dict[str, Loss] = {
        'center': lambda x, y: (center_loss(x, y, centers_at(x, y)).sum() / max(1, len(x)),),
        'class mean': lambda x, y: (class_mean_center_loss(x, y, centers_at(x, y)).sum(),),
    }
    for distance in DISTANCES:
        for normalize in (False, True):
            name = distance + ' normalized' * normalize
            for balance in (False, True):
                losses[f'contrastive {name} {balance}'] = (
                    lambda x, y, d=distance, n=normalize, b=balance: (  # type: ignore[misc]
                        contrastive_loss(x, y, 1.0, d, n, b)
                    )
                )
            for mining, soft in itertools.product(MININGS, (False, True)):
                losses[f'triplet {name} {mining} {soft}'] = (
                    lambda x, y, d=distance, n=normalize, m=mining, s=soft: (  # type: ignore[misc]
                        triplet_loss(x, y, 0.3, m, d, n, s)
                    )
                )
    return losses


LOSSES = all_losses()
each_loss = pytest.mark.parametrize('loss', LOSSES.values(), ids=LOSSES)


@pytest.mark.parametrize('name', [name for name in LOSSES if name not in ('center', 'class mean')])
def test_order_of_samples_and_names_of_identities_do_not_matter(name: str) -> None:
    x, y = batch(10)
    expected = LOSSES[name](x, y)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    for result, wanted in zip(LOSSES[name](x[order], y[order]), expected, strict=True):
        torch.testing.assert_close(result, wanted, rtol=1e-12, atol=1e-12)
    for result, wanted in zip(
        LOSSES[name](x, torch.tensor([7, -3, 90000, 0])[y]), expected, strict=True
    ):
        assert result.equal(wanted)


@pytest.mark.parametrize('loss', [center_loss, class_mean_center_loss])
def test_order_of_samples_and_of_centers_does_not_matter(loss: Callable[..., Tensor]) -> None:
    x, y = batch(10)
    centers = torch.randn(4, 5, dtype=torch.float64)
    order, names = torch.randperm(len(x)), torch.tensor([2, 0, 3, 1])
    moved = loss(x[order], names[y[order]], centers[names.argsort()])
    assert moved.equal(loss(x, y, centers)[order])


@each_loss
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(loss: Loss, dtype: torch.dtype) -> None:
    x, y = batch(11)
    half = x.to(dtype)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        result = loss(half, y)[0]
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, loss(half.float(), y)[0], rtol=0, atol=0)
    torch.testing.assert_close(result.double(), loss(half.double(), y)[0], rtol=1e-5, atol=1e-6)


@each_loss
@pytest.mark.parametrize('labels', [[], [3], [2, 2, 2], [0, 1, 2]], ids=str)
def test_batches_without_triplets_or_pairs_keep_the_graph(loss: Loss, labels: list[int]) -> None:
    x = torch.randn(len(labels), 4, requires_grad=True)
    result = loss(x, torch.tensor(labels, dtype=torch.long))
    result[0].backward()
    assert x.grad is not None and x.grad.isfinite().all()
    if len(result) == 4 and hasattr(result, 'easy') or len(labels) == 0:
        assert [part.item() for part in result] == [0] * len(result)
        assert not x.grad.any()


@each_loss
def test_one_point_has_a_finite_gradient(loss: Loss) -> None:
    for value in (0.0, 1.0, 1000.0):
        x = torch.full((6, 4), value, requires_grad=True)
        result = loss(x, torch.tensor([0, 0, 1, 1, 2, 2]))
        result[0].backward()
        assert result[0].isfinite() and x.grad is not None and x.grad.isfinite().all()
        if hasattr(result, 'hard'):
            assert result[0].item() in (pytest.approx(0.3), pytest.approx(math.log(2)))
            assert result[-1].item() == 6 * 4  # every triplet is hard


def fuzz_features(rng: random.Random, samples: int, dim: int) -> Tensor:
    """Extremes, zeros, duplicates, near-duplicates and short features, in three precisions."""
    x = torch.randn(samples, dim) * rng.choice([0.0, 1e-30, 1e-8, 1e-3, 1.0, 50.0, 1e4])
    if rng.random() < 0.5:
        x += rng.choice([1.0, 100.0, 1e4])
    for row in range(samples):
        what = rng.random()
        if what < 0.1:
            x[row] = 0
        elif what < 0.3:
            x[row] = x[rng.randrange(samples)] * rng.choice([1, 1, -1, 1 + 1e-6, 1e-7])
        elif what < 0.35:
            x[row, 0] = rng.choice([65504.0, -65504.0, 6e-8])
    return x.to(rng.choice([torch.float32, torch.float16, torch.bfloat16]))


@pytest.mark.parametrize('cases', [20_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_value_and_gradient_are_finite(cases: int) -> None:
    rng = random.Random(cases)
    torch.manual_seed(cases)
    names = sorted(LOSSES)
    for case in range(cases):
        if case % 5 == 0:
            samples, dim = rng.randint(0, 7), rng.randint(1, 6)
            x = fuzz_features(rng, samples, dim)
            y = torch.tensor([rng.randint(0, rng.randint(0, 6)) for _ in range(samples)]).long()
        name = names[case % len(names)]
        leaf = x.detach().requires_grad_()
        leaf.grad = None
        # Squares of large distances leave float16: there the gradient is looked at in float32.
        if not any(part in name for part in ('triplet euclidean', 'cosine', 'normalized')):
            leaf = x.detach().float().requires_grad_()
        value = LOSSES[name](leaf, y)[0]
        value.backward()
        assert value.isfinite() and value >= -1e-6, (name, x, y)
        assert leaf.grad is not None and leaf.grad.isfinite().all(), (name, x, y)


@pytest.mark.parametrize(
    'name',
    [
        'center',
        'class mean',
        'contrastive euclidean True',
        'triplet euclidean batch_hard False',
        'triplet cosine semi_hard True',
        'triplet euclidean batch_all False',
    ],
)
def test_compiles_in_one_graph(name: str) -> None:
    x, y = batch(12)
    x = x.float()
    compiled = torch.compile(LOSSES[name], fullgraph=True, backend='aot_eager')
    eager, graph = x.clone().requires_grad_(), x.clone().requires_grad_()
    expected, result = LOSSES[name](eager, y), compiled(graph, y)
    for part, other in zip(result, expected, strict=True):
        torch.testing.assert_close(part, other)
    result[0].backward(), expected[0].backward()
    torch.testing.assert_close(graph.grad, eager.grad)


def test_everything_stays_on_the_device_of_its_inputs() -> None:
    with FakeTensorMode():
        x = torch.rand(8, 4, device='cuda')
        y = torch.full((8,), 1, device='cuda')
        centers = torch.rand(3, 4, device='cuda')
        results = [
            center_loss(x, y, centers),
            class_mean_center_loss(x, y, centers),
            *center_shift(x, y, centers, torch.arange(3, device='cuda')),
            *contrastive_loss(x, y),
            *(part for mining in MININGS for part in triplet_loss(x, y, mining=mining)),  # type: ignore[arg-type]
        ]
        assert {result.device.type for result in results} == {'cuda'}


# --- Errors -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('features', 'labels', 'error', 'message'),
    [
        (
            torch.zeros(2, 3, dtype=torch.long),
            torch.zeros(2).long(),
            TypeError,
            'features must be floating point, got torch.int64',
        ),
        (torch.zeros(2, 3), torch.zeros(2), TypeError, 'labels must be integers.*float32.*long'),
        (torch.zeros(2, 3), torch.zeros(2).bool(), TypeError, 'labels must be integers.*bool'),
        (torch.zeros(2, 3), [0, 1], TypeError, 'labels must be a tensor, got list'),
        (torch.zeros(2, 3), torch.zeros(3).long(), ValueError, r'\(N, D\).*\(2, 3\) and \(3,\)'),
        (torch.zeros(2, 3, 1), torch.zeros(2).long(), ValueError, r'\(2, 3, 1\) and \(2,\)'),
        (torch.zeros(2, 3), torch.zeros(2, 1).long(), ValueError, r'\(2, 3\) and \(2, 1\)'),
        (torch.zeros(2, 3), torch.zeros(2, device='meta').long(), ValueError, 'on cpu.*on meta'),
    ],
)
def test_wrong_batches_are_named(features: Any, labels: Any, error: Any, message: str) -> None:
    for loss in (triplet_loss, contrastive_loss):
        with pytest.raises(error, match=message):
            loss(features, labels)
    with pytest.raises(error, match=message):
        center_loss(features, labels, torch.zeros(1, 3))


@pytest.mark.parametrize('label', [-1, 4])
def test_labels_out_of_range_are_named(label: int) -> None:
    y = torch.tensor([0, label, label])
    with pytest.raises(ValueError, match=rf'0 to 3 for num_classes=4, got {label} \(2 of 3'):
        center_loss(torch.zeros(3, 2), y, torch.zeros(4, 2))
    with pytest.raises(ValueError, match=r'one D.*\(3, 2\) and \(4, 5\).*in_channels'):
        class_mean_center_loss(torch.zeros(3, 2), y.clamp(0, 3), torch.zeros(4, 5))


@pytest.mark.parametrize(
    ('loss', 'options', 'message'),
    [
        (triplet_loss, {'margin': -0.1}, 'margin must be above 0 and finite, got -0.1'),
        (triplet_loss, {'margin': math.nan}, 'margin must be above 0'),
        (triplet_loss, {'mining': 'hard'}, "mining must be one of .*'batch_hard'.*got 'hard'"),
        (triplet_loss, {'distance': 'l2'}, "distance must be one of .*'euclidean'.*got 'l2'"),
        (contrastive_loss, {'margin': 0}, 'margin must be above 0 and finite, got 0'),
        (contrastive_loss, {'distance': 'l2'}, 'distance must be one of'),
    ],
)
def test_wrong_options_are_named(loss: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loss(torch.zeros(2, 2), torch.zeros(2).long(), **options)
