"""Every margin under a head, against the formulas of its paper on the whole table in float64.

A new margin gets a row in `PAPERS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mmdet_ext.catalog.cases import cases_of
from mmdet_ext.functional.embedding.competition import class_competition
from tests._helpers.face.margin_heads import (
    CHANNELS,
    CLASSES,
    PATHS,
    SCALE,
    assert_near,
    batch,
    gradients,
    loss_of,
    make_head,
    samples,
)

# Input of a reference: cosines (N, C), angle to the own centre (N,), lengths of features (N,) and
# of own centres (N,), labels, and the dot products.
Table = SimpleNamespace


def table_of(x: Tensor, weight: Tensor, labels: Tensor, centers: int) -> Table:
    v = weight / weight.norm(dim=1, keepdim=True)
    u = x / x.norm(dim=1, keepdim=True)

    def nearest(rows: Tensor) -> tuple[Tensor, Tensor]:
        best = rows.view(len(x), -1, centers).max(2)
        return best.values, best.indices

    cosines, _ = nearest(u @ v.t())
    dots, place = nearest(x @ weight.t())
    halves, _ = nearest(x @ v.t())
    row = torch.arange(len(x))
    own = weight[labels * centers + place[row, labels]]
    # LSoftmax chooses the centre by the dot product, the other margins by the cosine.
    return Table(
        cosines=cosines,
        t=torch.acos(cosines[row, labels]),
        a=x.norm(dim=1),
        y=labels,
        dots=dots,
        halves=halves,
        own_norm=own.norm(dim=1),
        own_t=torch.acos(dots[row, labels] / x.norm(dim=1) / own.norm(dim=1)),
        row=row,
    )


def put(scores: Tensor, table: Table, own: Tensor) -> Tensor:
    return scores.scatter(1, table.y[:, None], own[:, None])


def scaled(own: Callable[[Table], Tensor]) -> Callable[[Table], Tensor]:
    """Return a softmax loss over s cos t_j, with the score s own(table) for the own class."""
    return lambda table: F.cross_entropy(
        put(SCALE * table.cosines, table, SCALE * own(table)), table.y
    )


def psi(t: Tensor, m: float) -> Tensor:
    k = torch.floor(m * t.detach() / math.pi)
    return (-1) ** k * torch.cos(m * t) - 2 * k


def turned(t: Tensor, m: Any) -> Tensor:
    m = torch.as_tensor(m, dtype=torch.float64)
    return torch.where(t + m < math.pi, torch.cos(t + m), torch.cos(t) - m * torch.sin(m))


def lowered(q: Table, m: float) -> Tensor:
    return torch.cos(q.t) - m


def arcface(q: Table, m: float) -> Tensor:
    return turned(q.t, m)


def straight(value: Tensor, table: Table) -> Tensor:
    cosine = torch.cos(table.t)
    return value.detach() + cosine - cosine.detach()


def annealed(t: Tensor, m: int, lam: float) -> Tensor:
    return (lam * torch.cos(t) + psi(t, m)) / (1 + lam)


def sphereface(m: int, lam: float) -> Callable[[Table], Tensor]:
    return lambda q: F.cross_entropy(put(q.halves, q, q.a * annealed(q.t, m, lam)), q.y)


def lsoftmax(m: int, lam: float) -> Callable[[Table], Tensor]:
    return lambda q: F.cross_entropy(
        put(q.dots, q, q.own_norm * q.a * annealed(q.own_t, m, lam)), q.y
    )


def adaface(q: Table, m: Any = 0.4, h: float = 0.333, momentum: float = 0.01) -> Tensor:
    lengths = q.a.detach().clamp(0.001, 100)
    mean = momentum * lengths.mean() + (1 - momentum) * 20
    deviation = momentum * lengths.std() + (1 - momentum) * 100
    quality = ((lengths - mean) / (deviation + 1e-3) * h).clamp(-1, 1)
    return torch.cos((q.t - m * quality).clamp(0, math.pi)) - (m + m * quality)


def curricular(q: Table, m: float = 0.5) -> Tensor:
    with torch.no_grad():
        pace = 0.01 * torch.cos(q.t).mean()
    hard = q.cosines > torch.cos(q.t + m).detach()[:, None]
    scores = torch.where(hard, q.cosines * (pace + q.cosines), q.cosines)
    return F.cross_entropy(SCALE * put(scores, q, turned(q.t, m)), q.y)


def magface(q: Table, low: float = 1.0, high: float = 5.0) -> Tensor:
    a = q.a.clamp(low, high)
    own = turned(q.t, 0.45 + (0.8 - 0.45) * (a - low) / (high - low))
    return scaled(lambda q: own)(q) + 35 * (1 / a + a / high**2).mean()


def shrunk(q: Table, m: float = 1.5) -> Tensor:
    value = put(torch.cos(torch.acos(q.cosines.detach()) / m), q, torch.cos(q.t).detach())
    return F.cross_entropy(SCALE * (value + q.cosines - q.cosines.detach()), q.y)


def uniface(q: Table, m: float = 0.4, weight: float = 1.0) -> Tensor:
    own = F.softplus(-(SCALE * (torch.cos(q.t) - m) - q.bias))
    rest = F.softplus(SCALE * q.cosines - q.bias)
    rest = rest.sum(1) - rest[q.row, q.y]
    return (own + weight * rest).mean()


LAMBDA_1 = 1000 / 1.12
COUNTS = [0, 1, 3, 10, 30, 50, 100, 200, 5, 7, 1000, 2, 1]
RARITY = [max(n, 1) ** -0.25 for n in COUNTS]
LIST = [0.05 * k for k in range(CLASSES)]
BY_COUNT = [0.05 + 0.45 * (r - min(RARITY)) / (max(RARITY) - min(RARITY)) for r in RARITY]
PAPERS: list[tuple[str, dict[str, Any], Callable[[Table], Tensor]]] = [
    ('Softmax', {}, lambda q: F.cross_entropy(q.dots, q.y)),
    ('Softmax', dict(bias=True), lambda q: F.cross_entropy(q.dots + q.bias, q.y)),
    ('NormFace', {}, scaled(lambda q: torch.cos(q.t))),
    ('LSoftmax', {}, lsoftmax(2, LAMBDA_1)),
    *(('LSoftmax', dict(m=m, lambda_max=0, lambda_min=0), lsoftmax(m, 0)) for m in (1, 2, 3, 4)),
    ('SphereFace', {}, sphereface(4, LAMBDA_1)),
    ('SphereFace', dict(lambda_max=2, lambda_min=1.5, gamma=9), sphereface(4, 1.5)),
    *(
        ('SphereFace', dict(m=m, lambda_max=0, lambda_min=0), sphereface(m, 0))
        for m in (1, 2, 3, 4)
    ),
    *(('CosFace', dict(m=m), scaled(partial(lowered, m=m))) for m in (0, 0.35, 1, 2)),
    ('CosFace', dict(m=LIST), scaled(lambda q: torch.cos(q.t) - torch.tensor(LIST)[q.y])),
    *(('ArcFace', dict(m=m), scaled(partial(arcface, m=m))) for m in (0, 0.5, 1, 2)),
    (
        'ArcFace',
        dict(m=dict(counts=COUNTS)),
        scaled(lambda q: turned(q.t, torch.tensor(BY_COUNT)[q.y])),
    ),
    (
        'ArcFace',
        dict(easy_margin=True),
        scaled(lambda q: torch.where(q.t < math.pi / 2, torch.cos(q.t + 0.5), torch.cos(q.t))),
    ),
    ('ArcFace', dict(gradient='straight_through'), scaled(lambda q: straight(turned(q.t, 0.5), q))),
    ('CombinedMargin', {}, scaled(lambda q: turned(q.t, 0.3) - 0.2)),
    ('CombinedMargin', dict(m1=3, m2=0, m3=0), scaled(lambda q: psi(q.t, 3))),
    (
        'CombinedMargin',
        dict(m1=1.35, m2=0.27, m3=0.1),
        scaled(lambda q: psi(q.t + 0.2, 1.35) - 0.1),
    ),
    (
        'CombinedMargin',
        dict(m1=1, m2=LIST, m3=LIST[::-1]),
        scaled(lambda q: turned(q.t, torch.tensor(LIST)[q.y]) - torch.tensor(LIST[::-1])[q.y]),
    ),
    ('AdaFace', {}, scaled(adaface)),
    ('AdaFace', dict(m=0.5, h=30, momentum=0.2), scaled(lambda q: adaface(q, 0.5, 30, 0.2))),
    ('AdaFace', dict(m=LIST), scaled(lambda q: adaface(q, torch.tensor(LIST)[q.y]))),
    ('CurricularFace', {}, curricular),
    ('MagFace', dict(norms=(1, 5)), magface),
    ('SphereFaceR', dict(version='v0'), scaled(lambda q: straight(psi(q.t, 1.5), q))),
    (
        'SphereFaceR',
        dict(version='v1'),
        scaled(lambda q: straight(torch.cos((1.5 * q.t).clamp(max=math.pi)), q)),
    ),
    ('SphereFaceR', dict(version='v2'), shrunk),
    ('UniFace', {}, uniface),
    ('UniFace', dict(m=1, negative_weight=0.3, bias=2), lambda q: uniface(q, 1, 0.3)),
]


def ids(row: Any) -> str:
    return '-'.join([row[0], *(f'{key}={value}' for key, value in row[1].items())])[:48]


each_paper = pytest.mark.parametrize('row', PAPERS, ids=ids)


def test_each_margin_has_a_reference() -> None:
    assert {name for name, *_ in PAPERS} == {case.name for case in cases_of('margin')}


@each_paper
@pytest.mark.parametrize('centers', [1, 2, 3])
def test_both_computations_have_value_and_gradient_of_the_paper(row: Any, centers: int) -> None:
    name, options, paper = row
    x, labels = batch()
    reference = make_head(name, centers, **options)
    leaves = [p.detach().double().requires_grad_() for p in (x, *reference.parameters())]
    names = [key for key, _ in reference.named_parameters()]
    table = table_of(leaves[0], leaves[1 + names.index('weight')], labels, centers)
    if 'margin.bias' in names:
        table.bias = leaves[1 + names.index('margin.bias')]
    value = paper(table)
    expected = (value.detach(), *torch.autograd.grad(value, leaves))
    for path in PATHS:
        found = gradients(make_head(name, centers, path, **options), x, labels)
        assert_near(found, expected, 2e-5)


@each_paper
@pytest.mark.parametrize('path', PATHS)
def test_double_precision_is_kept(row: Any, path: str) -> None:
    name, options, paper = row
    x, labels = (t.double() if t.is_floating_point() else t for t in batch())
    head = make_head(name, 2, path, **options).double()
    leaves = [p.detach().clone().requires_grad_() for p in (x, *head.parameters())]
    names = [key for key, _ in head.named_parameters()]
    table = table_of(leaves[0], leaves[1 + names.index('weight')], labels, 2)
    if 'margin.bias' in names:
        table.bias = leaves[1 + names.index('margin.bias')]
    value = paper(table)
    expected = (value.detach(), *torch.autograd.grad(value, leaves))
    found = gradients(head, x, labels)
    assert all(part.dtype == torch.float64 for part in found)
    # Margins per class and running means are float32, and softplus is linear from 20 on.
    assert_near(
        found,
        expected,
        1e-6
        if isinstance(options.get('m'), (list, dict))
        or name in ('AdaFace', 'CombinedMargin', 'CurricularFace')
        else 1e-8,
    )
    # Double precision of the features alone is enough.
    assert loss_of(make_head(name, 2, path, **options), x, labels).dtype == torch.float64


def by_centers(row: Any, path: str) -> list[tuple[Tensor, ...]]:
    """Return loss and gradients with one to three centres per class."""
    name, options, _ = row
    return [gradients(make_head(name, c, path, **options), *batch(c)) for c in (1, 2, 3)]


@each_paper
@pytest.mark.parametrize('chunk', [1, 4, 13])
def test_chunks_of_classes_change_nothing(
    row: Any, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = by_centers(row, 'plain')
    monkeypatch.setattr(
        'mmdet_ext.face.heads.centers.class_competition',
        lambda *args, **options: class_competition(*args, **options, chunk=chunk),
    )
    for found, expected in zip(by_centers(row, 'exact'), plain, strict=True):
        assert_near(found, expected, 1e-5)


@each_paper
@pytest.mark.parametrize('path', PATHS)
def test_empty_and_single_sample_batches_are_finite(row: Any, path: str) -> None:
    name, options, _ = row
    head = make_head(name, path=path, **options)
    state = {key: value.clone() for key, value in head.state_dict().items()}
    empty = gradients(head, torch.zeros(0, CHANNELS), torch.zeros(0, dtype=torch.long))
    # The loss is a zero that keeps the graph, and running means stay in place.
    assert empty[0] == 0 and all(g is not None and not g.any() for g in empty)
    assert all(
        value.equal(state[key])
        for key, value in head.state_dict().items()
        if not key.endswith('step')
    )
    found = gradients(head, *(t[:1] for t in batch()))
    assert all(t.isfinite().all() for t in found) and found[1].any()
    same = gradients(
        make_head(name, path=path, **options), torch.ones(5, CHANNELS), torch.full((5,), 3)
    )
    assert all(t.isfinite().all() for t in same) and same[1].any()


@each_paper
@pytest.mark.parametrize('centers', [1, 2])
def test_one_class_costs_nothing_without_a_threshold(row: Any, centers: int) -> None:
    name, options, _ = row
    options = {key: [0.3] if isinstance(value, list) else value for key, value in options.items()}
    if isinstance(options.get('m'), dict):
        options['m'] = dict(counts=[7])
    x, labels = batch()[0], torch.zeros(24, dtype=torch.long)
    for path in PATHS:
        head = make_head(name, centers, path, classes=1, **options)
        losses = head.loss((x.requires_grad_(),), samples(labels))
        # There is no other class. Only UniFace, which has a threshold, has a loss.
        assert (losses['loss'] == 0) == (name != 'UniFace')
        losses['loss'].backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())
