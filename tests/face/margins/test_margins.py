"""The registered margins under a head: against the papers in float64, and what they keep."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import mmdet_ext
from mmdet_ext.catalog.cases import MARGINS
from mmdet_ext.face.heads import MarginHead, build_margin
from mmdet_ext.face.margins.class_margins import ClassMargins
from mmdet_ext.face.margins.base import per_class_options

REPO = Path(mmdet_ext.__file__).resolve().parents[1]
CLASSES, CHANNELS, SCALE = 13, 6, 16.0
PATHS = ('plain', 'exact')


class Sample(SimpleNamespace):
    """A data sample that holds a label alone."""

    def __contains__(self, name: str) -> bool:
        return hasattr(self, name)


def samples(labels: Tensor) -> list[Any]:
    return [Sample(gt_label=label.view(1)) for label in labels]


def make_head(
    margin: str,
    centres: int = 1,
    path: Any = 'exact',
    seed: int = 0,
    classes: int = CLASSES,
    **options: Any,
) -> Any:
    torch.manual_seed(seed)
    head = MarginHead(classes, CHANNELS, dict(type=margin, **options), SCALE, centres, path=path)
    nn.init.normal_(head.weight, std=0.4)
    return head


def batch(seed: int = 0, number: int = 24) -> tuple[Tensor, Tensor]:
    """Features of lengths from 1 to 6 or so, at all angles to their centres."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(number, CHANNELS, generator=generator)
    x *= 0.5 + torch.rand(number, 1, generator=generator) * 2
    return x, torch.randint(CLASSES - 2, (number,), generator=generator)


def total(head: MarginHead, x: Tensor, labels: Tensor) -> Tensor:
    losses = head.loss((x,), samples(labels))
    return torch.stack([value for key, value in losses.items() if 'loss' in key]).sum()


def gradients(head: MarginHead, x: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
    leaf = x.clone().requires_grad_()
    value = total(head, leaf, labels)
    return (value.detach(), *torch.autograd.grad(value, [leaf, *head.parameters()]))


# --- The papers, with the whole table in float64 --------------------------------------------------

# What a twin gets of a batch: cosines (N, C), angle to the own centre (N,), lengths of features
# (N,) and of own centres (N,), labels, the dot products.
Table = SimpleNamespace


def table_of(x: Tensor, weight: Tensor, labels: Tensor, centres: int) -> Table:
    v = weight / weight.norm(dim=1, keepdim=True)
    u = x / x.norm(dim=1, keepdim=True)

    def nearest(rows: Tensor) -> tuple[Tensor, Tensor]:
        best = rows.view(len(x), -1, centres).max(2)
        return best.values, best.indices

    cosines, _ = nearest(u @ v.t())
    dots, place = nearest(x @ weight.t())
    halves, _ = nearest(x @ v.t())
    row = torch.arange(len(x))
    own = weight[labels * centres + place[row, labels]]
    # The own cosine as each margin sees it: LSoftmax chooses the centre by the dot product.
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
    """A softmax over s cos t_j, with s times this for the own class."""
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
TWINS: list[tuple[str, dict[str, Any], Callable[[Table], Tensor]]] = [
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


each_twin = pytest.mark.parametrize('row', TWINS, ids=ids)


def test_each_margin_has_a_twin() -> None:
    assert {name for name, *_ in TWINS} == {case.name for case in MARGINS}


@each_twin
@pytest.mark.parametrize('centres', [1, 2, 3])
def test_both_paths_have_value_and_gradient_of_the_paper(row: Any, centres: int) -> None:
    name, options, twin = row
    x, labels = batch()
    reference = make_head(name, centres, **options)
    leaves = [p.detach().double().requires_grad_() for p in (x, *reference.parameters())]
    names = [key for key, _ in reference.named_parameters()]
    table = table_of(leaves[0], leaves[1 + names.index('weight')], labels, centres)
    if 'margin.bias' in names:
        table.bias = leaves[1 + names.index('margin.bias')]
    value = twin(table)
    expected = (value.detach(), *torch.autograd.grad(value, leaves))
    for path in PATHS:
        found = gradients(make_head(name, centres, path, **options), x, labels)
        assert_near(found, expected, 2e-5)


@each_twin
@pytest.mark.parametrize('path', PATHS)
def test_double_precision_is_kept(row: Any, path: str) -> None:
    name, options, twin = row
    x, labels = (t.double() if t.is_floating_point() else t for t in batch())
    head = make_head(name, 2, path, **options).double()
    leaves = [p.detach().clone().requires_grad_() for p in (x, *head.parameters())]
    names = [key for key, _ in head.named_parameters()]
    table = table_of(leaves[0], leaves[1 + names.index('weight')], labels, 2)
    if 'margin.bias' in names:
        table.bias = leaves[1 + names.index('margin.bias')]
    value = twin(table)
    expected = (value.detach(), *torch.autograd.grad(value, leaves))
    found = gradients(head, x, labels)
    assert all(part.dtype == torch.float64 for part in found)
    # Margins a class, and means, start as float32; softplus is a line from 20 on.
    assert_near(
        found,
        expected,
        1e-6
        if isinstance(options.get('m'), (list, dict))
        or name in ('AdaFace', 'CombinedMargin', 'CurricularFace')
        else 1e-8,
    )
    # Features of double precision alone will do.
    assert total(make_head(name, 2, path, **options), x, labels).dtype == torch.float64


def assert_near(found: tuple[Tensor, ...], expected: tuple[Tensor, ...], tolerance: float) -> None:
    """Equal to a share of the largest entry, each tensor by itself."""
    for i, (one, other) in enumerate(zip(found, expected, strict=True)):
        off = (one.double() - other.double()).abs().max().item()
        assert off <= tolerance * max(1, other.abs().max().item()), (i, off)


def by_centres(row: Any, path: str) -> list[tuple[Tensor, ...]]:
    """Loss and gradients with one to three centres a class."""
    name, options, _ = row
    return [gradients(make_head(name, c, path, **options), *batch(c)) for c in (1, 2, 3)]


@each_twin
@pytest.mark.parametrize('chunk', [1, 4, 13])
def test_chunks_of_classes_change_nothing(
    row: Any, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmdet_ext.functional.embedding.competition import class_competition as whole

    plain = by_centres(row, 'plain')
    monkeypatch.setattr(
        'mmdet_ext.face.heads.margin_head.class_competition',
        lambda *args, **options: whole(*args, **options, chunk=chunk),
    )
    for found, expected in zip(by_centres(row, 'exact'), plain, strict=True):
        assert_near(found, expected, 1e-5)


@each_twin
@pytest.mark.parametrize('path', PATHS)
def test_smallest_batches(row: Any, path: str) -> None:
    name, options, _ = row
    head = make_head(name, path=path, **options)
    state = {key: value.clone() for key, value in head.state_dict().items()}
    empty = gradients(head, torch.zeros(0, CHANNELS), torch.zeros(0, dtype=torch.long))
    # A zero that keeps the graph, and leaves the running means where they are.
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


@each_twin
@pytest.mark.parametrize('centres', [1, 2])
def test_one_class(row: Any, centres: int) -> None:
    name, options, _ = row
    options = {key: [0.3] if isinstance(value, list) else value for key, value in options.items()}
    if isinstance(options.get('m'), dict):
        options['m'] = dict(counts=[7])
    x, labels = batch()[0], torch.zeros(24, dtype=torch.long)
    for path in PATHS:
        head = make_head(name, centres, path, classes=1, **options)
        losses = head.loss((x.requires_grad_(),), samples(labels))
        # Nothing to beat: UniFace alone, which has a threshold, asks for something.
        assert (losses['loss'] == 0) == (name != 'UniFace')
        losses['loss'].backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())


# --- Identities ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('one', 'other'),
    [
        (dict(type='CombinedMargin', m1=1, m2=0.5, m3=0), dict(type='ArcFace', m=0.5)),
        (dict(type='CombinedMargin', m1=1, m2=1, m3=0), dict(type='ArcFace', m=1)),
        (dict(type='CombinedMargin', m1=1, m2=0, m3=0.35), dict(type='CosFace', m=0.35)),
        (dict(type='CombinedMargin', m1=1, m2=0, m3=2), dict(type='CosFace', m=2)),
        (dict(type='CombinedMargin', m1=1, m2=0, m3=0), dict(type='NormFace')),
        (dict(type='ArcFace', m=0), dict(type='NormFace')),
        (dict(type='ArcFace', m=0, easy_margin=True), dict(type='NormFace')),
        (dict(type='ArcFace', m=0, gradient='straight_through'), dict(type='NormFace')),
        (dict(type='CosFace', m=0), dict(type='NormFace')),
        (dict(type='AdaFace', m=0), dict(type='NormFace')),
        (dict(type='AdaFace', h=0), dict(type='CosFace', m=0.4)),
        (dict(type='MagFace', margins=(0, 0), penalty_weight=0), dict(type='NormFace')),
        (dict(type='MagFace', margins=(0.5, 0.5), penalty_weight=0), dict(type='ArcFace', m=0.5)),
        *(
            (dict(type='SphereFaceR', m=1, version=f'v{i}'), dict(type='NormFace'))
            for i in range(3)
        ),
        (dict(type='LSoftmax', m=1), dict(type='Softmax')),
        (dict(type='CosFace', m=[0.2] * CLASSES), dict(type='CosFace', m=0.2)),
        (dict(type='ArcFace', m=dict(counts=[9] * CLASSES)), dict(type='ArcFace', m=0.5)),
        (dict(type='ArcFace', m=dict(counts=[9] * CLASSES, high=0.3)), dict(type='ArcFace', m=0.3)),
    ],
)
def test_margins_that_are_the_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    for path in PATHS:
        found, expected = (
            gradients(
                make_head(cfg['type'], path=path, **{k: v for k, v in cfg.items() if k != 'type'}),
                *batch(),
            )
            for cfg in (one, other)
        )
        assert_near(found, expected, 1e-5)


def test_psi_on_a_fixed_scale_is_sphereface_on_features_of_that_length() -> None:
    x, labels = batch()
    x = SCALE * F.normalize(x)
    values = [
        make_head(name, **options).loss((x,), samples(labels))['loss'].item()
        for name, options in (
            ('CombinedMargin', dict(m1=4, m2=0, m3=0)),
            ('SphereFace', dict(m=4, lambda_max=0, lambda_min=0)),
        )
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-5)


def test_margin_makes_the_loss_larger_and_untrained_others_equal() -> None:
    x, labels = batch()
    plain = make_head('NormFace').loss((x,), samples(labels))['loss']
    for name in ('CosFace', 'ArcFace', 'CombinedMargin', 'AdaFace', 'SphereFaceR'):
        assert make_head(name).loss((x,), samples(labels))['loss'] > plain + 1


# --- AdaFace's, CurricularFace's and the annealing's memory ---------------------------------------


def test_adaface_follows_lengths_as_the_program_of_its_authors() -> None:
    """Lengths held between 0.001 and 100, deviation with N - 1, first the means, then margins."""
    head = make_head('AdaFace', momentum=0.1)
    mean, deviation = 20.0, 100.0
    for seed in range(4):
        x, labels = batch(seed)
        x[0] *= 1e3
        x[1] *= 0
        total(head, x, labels)
        lengths = x.norm(dim=1).clamp(0.001, 100)
        mean = 0.1 * lengths.mean().item() + 0.9 * mean
        deviation = 0.1 * lengths.std().item() + 0.9 * deviation
        assert head.margin.mean.item() == pytest.approx(mean, rel=1e-5)
        assert head.margin.deviation.item() == pytest.approx(deviation, rel=1e-5)
    # One picture has no deviation.
    total(head, *(t[:1] for t in batch()))
    assert head.margin.deviation.item() == pytest.approx(deviation, rel=1e-5)
    assert head.margin.mean.item() != pytest.approx(mean, rel=1e-5)


def test_better_pictures_get_the_larger_additive_and_the_smaller_angular_margin() -> None:
    margin: Any = build_margin(dict(type='AdaFace', h=1.0), 3)
    margin.mean.fill_(10), margin.deviation.fill_(5)
    norm = torch.tensor([0.0, 5.0, 10.0, 15.0, 90.0])
    found = margin.cosine_margin(torch.full((5,), 0.5), norm, torch.zeros(5, dtype=torch.long))
    t = math.acos(0.5)
    expected = [math.cos(t + 0.4 * k) - 0.4 * (1 - k) for k in (1, 1, 0, -1, -1)]
    assert found.tolist() == pytest.approx(expected, abs=2e-4)


def test_curricularface_moves_its_pace_in_training_alone() -> None:
    for path in PATHS:
        head = make_head('CurricularFace', path=path, momentum=0.1)
        pace = 0.0
        for seed in range(4):
            x, labels = batch(seed)
            own = F.cosine_similarity(x, head.weight[labels]).mean().item()
            pace += 0.1 * (own - pace)
            total(head, x, labels)
            assert head.margin.pace.item() == pytest.approx(pace, abs=1e-6)
        head.eval()
        total(head, *batch(9))
        assert head.margin.pace.item() == pytest.approx(pace, abs=1e-6)


@pytest.mark.parametrize('path', PATHS)
def test_curricularface_with_two_batches_before_their_backward_passes(path: str) -> None:
    """Gradients are of the pace that each batch was scored with, not of the last one."""
    (x, labels), (other, other_labels) = batch(1), batch(2)
    head = make_head('CurricularFace', path=path, momentum=0.5)
    first, second = total(head, x, labels), total(head, other, other_labels)
    (first + second).backward()
    again = make_head('CurricularFace', path=path, momentum=0.5)
    total(again, x, labels).backward()
    total(again, other, other_labels).backward()
    torch.testing.assert_close(head.weight.grad, again.weight.grad, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('name', ['AdaFace', 'CurricularFace'])
@pytest.mark.parametrize('bad', [math.nan, math.inf])
@pytest.mark.parametrize('path', PATHS)
def test_one_overflow_does_not_stay_in_the_means(name: str, bad: float, path: str) -> None:
    """As of mixed precision, where a scaler passes over the step, but not over the buffers."""
    head = make_head(name, path=path)
    x, labels = batch()
    x[3, 2] = bad
    total(head, x, labels)
    assert all(value.isfinite() for value in head.margin.buffers())
    assert total(head, *batch(1)).isfinite()


@pytest.mark.parametrize('name', ['AdaFace', 'CurricularFace'])
def test_means_of_half_precision_move(name: str) -> None:
    head = make_head(name, momentum=0.5).half()
    before = [value.item() for value in head.margin.buffers()]
    value, *grads = gradients(head, batch()[0].half(), batch()[1])
    assert value.isfinite() and all(g.isfinite().all() for g in grads)
    after = [value.item() for value in head.margin.buffers()]
    assert all(new != old for new, old in zip(after, before, strict=True))


def test_annealing_falls_to_its_end_and_stands_still_in_evaluation() -> None:
    head = make_head('SphereFace', lambda_max=1000, lambda_min=5, gamma=0.12, power=1)
    margin = head.margin
    assert margin.annealing() == 1000
    for step in range(1, 4):
        total(head, *batch())
        assert margin.annealing().item() == pytest.approx(1000 / (1 + 0.12 * step))
    head.eval()
    total(head, *batch())
    assert margin.step == 3
    margin.step.fill_(10_000)
    assert margin.annealing() == 5
    # m = 4, lambda 5: 5/6 of a cosine and 1/6 of psi.
    t = torch.tensor([0.3, 1.0, 2.0, 3.0])
    found = margin.cosine_margin(torch.cos(t), torch.ones(4), torch.zeros(4, dtype=torch.long))
    torch.testing.assert_close(found.double(), annealed(t.double(), 4, 5), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ('name', 'buffers'),
    [
        ('AdaFace', {'margin.mean', 'margin.deviation'}),
        ('CurricularFace', {'margin.pace'}),
        ('SphereFace', {'margin.step'}),
        ('LSoftmax', {'margin.step'}),
    ],
)
def test_memory_goes_with_the_state(name: str, buffers: set[str], tmp_path: Path) -> None:
    head = make_head(name)
    for seed in range(3):
        total(head, *batch(seed))
    torch.save(head.state_dict(), tmp_path / 'head.pth')
    other = make_head(name, seed=7)
    other.load_state_dict(torch.load(tmp_path / 'head.pth', weights_only=True))
    assert set(head.state_dict()) == {'weight', *buffers}
    for one, two in zip(gradients(head, *batch(9)), gradients(other, *batch(9)), strict=True):
        assert one.equal(two)
    assert all(head.state_dict()[key].equal(other.state_dict()[key]) for key in buffers)


WORKER = """
import sys
import torch
import torch.distributed as dist
from types import SimpleNamespace
from mmdet_ext.face.heads import MarginHead

class Sample(SimpleNamespace):
    __contains__ = SimpleNamespace.__dict__.get('__contains__') or (lambda self, name: hasattr(self, name))

rank, folder = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
dist.init_process_group('gloo', f'file://{folder}/store', rank=rank, world_size=2)
kept = {}
for name in ('AdaFace', 'CurricularFace'):
    torch.manual_seed(0)
    head = MarginHead(13, 6, dict(type=name, momentum=0.1))
    for step in range(4):
        generator = torch.Generator().manual_seed(step)
        x = 3 * torch.randn(10, 6, generator=generator)
        y = torch.randint(13, (10,), generator=generator)
        # In the last step, one rank has no samples.
        part = slice(5 * rank, 5 * rank + 5) if step < 3 else slice(0, 10 if rank == 0 else 0)
        losses = head.loss((x[part],), [Sample(gt_label=v.view(1)) for v in y[part]])
        kept.setdefault(name, []).append([b.item() for b in head.margin.buffers()])
torch.save(kept, f'{folder}/{rank}.pth')
dist.destroy_process_group()
"""  # noqa: E501


@pytest.mark.subprocess
def test_running_means_are_equal_on_two_processes(tmp_path: Path) -> None:
    env = {
        **os.environ,
        'PYTHONPATH': str(REPO),
        'OMP_NUM_THREADS': '1',
        'CUDA_VISIBLE_DEVICES': '',
    }
    workers = [
        subprocess.Popen(
            [sys.executable, '-c', WORKER, str(rank), str(tmp_path)],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    for worker in workers:
        output, _ = worker.communicate(timeout=120)
        assert worker.returncode == 0, output[-4000:]
    first, second = (torch.load(tmp_path / f'{rank}.pth', weights_only=True) for rank in range(2))
    assert first == second
    # The mean of both halves' means, which is that of the batch while they are equally large.
    torch.manual_seed(0)
    head = MarginHead(13, 6, dict(type='CurricularFace'))
    mean, deviation, pace = 20.0, 100.0, 0.0
    for step in range(3):
        generator = torch.Generator().manual_seed(step)
        x = 3 * torch.randn(10, 6, generator=generator)
        labels = torch.randint(13, (10,), generator=generator)
        lengths = x.norm(dim=1)
        mean += 0.1 * (lengths.mean().item() - mean)
        deviation += 0.1 * (lengths.view(2, 5).std(1).mean().item() - deviation)
        pace += 0.1 * (F.cosine_similarity(x, head.weight[labels]).mean().item() - pace)
        assert first['AdaFace'][step] == pytest.approx([mean, deviation], rel=1e-5)
        assert first['CurricularFace'][step] == pytest.approx([pace], abs=1e-6)
    assert first['AdaFace'][3][0] != first['AdaFace'][2][0]


# --- A margin a class -----------------------------------------------------------------------------


def test_margins_by_counts_give_the_rare_more() -> None:
    margins = ClassMargins('m', dict(counts=[10_000, 0, 1, 16], high=0.5, low=0.1, power=-0.25))
    found = margins(torch.arange(4)).tolist()
    # 10000^-1/4 = 0.1, 1, 1, 16^-1/4 = 0.5.
    assert found == pytest.approx([0.1, 0.5, 0.5, 0.1 + 0.4 * 0.4 / 0.9])
    margins.bind(4)


def test_margins_from_the_file_of_the_counting_tool(tmp_path: Path) -> None:
    file = tmp_path / 'counts.json'
    file.write_text(json.dumps(dict(classes=list('abc'), counts=[1, 81, 16])))
    option = dict(counts=str(file), high=0.4, low=0)
    found = make_head('CosFace', classes=3, m=option).margin.m(torch.tensor([0, 1, 2, 0])).tolist()
    # 1, 1/3, 1/2.
    assert found == pytest.approx([0.4, 0, 0.1, 0.4])


def test_balanced_counts_give_all_the_same() -> None:
    margins = ClassMargins('m', dict(counts=[5, 5, 5], high=0.4))
    assert margins(torch.arange(3)).tolist() == pytest.approx([0.4] * 3)


def test_margins_a_class_move_with_the_head_and_stay_out_of_checkpoints() -> None:
    head = make_head('CosFace', m=LIST)
    assert set(head.state_dict()) == {'weight'}
    assert head.to('meta').margin.m.values.device.type == 'meta'
    assert repr(make_head('CosFace', m=LIST).margin.m) == 'ClassMargins(m per class)'
    assert repr(make_head('CosFace', m=0.2).margin.m) == 'ClassMargins(m=0.2)'


@pytest.mark.parametrize(
    ('margin', 'error', 'message'),
    [
        (dict(type='CosFace', m=[0.1, 0.2]), ValueError, 'm has margins .* for 2 classes.*=13'),
        (dict(type='ArcFace', m=dict(counts=[3] * 12)), ValueError, 'for 12 classes.*=13'),
        (
            dict(type='CombinedMargin', m3=[0.1] * 14),
            ValueError,
            'm3 has margins .* for 14 classes',
        ),
        (dict(type='UniFace', m=[0.1] * 14), ValueError, 'm has margins'),
        (dict(type='ArcFace', m=dict(high=0.3)), ValueError, 'got no counts'),
        (
            dict(type='ArcFace', m=dict(counts=[1], hihg=0.3)),
            ValueError,
            r"unknown keys \['hihg'\]",
        ),
        (
            dict(type='ArcFace', m=dict(counts=[1], low=0.6)),
            ValueError,
            'low must not be above high',
        ),
        (dict(type='ArcFace', m=dict(counts=[1, -1])), ValueError, 'counts'),
        (dict(type='ArcFace', m=dict(counts='absent.json')), FileNotFoundError, 'absent.json'),
        (dict(type='ArcFace', m='0.5'), TypeError, "m must be a number, a list .*'0.5'"),
        (dict(type='ArcFace', m=[0.1, '0.1']), TypeError, "m must be numbers, got '0.1'"),
        (dict(type='ArcFace', m=math.pi), ValueError, 'm must be from 0 to below 3.142'),
        (dict(type='ArcFace', m=[0.1, -0.1]), ValueError, 'm must be from 0 .*-0.1'),
        (dict(type='CosFace', m=math.nan), ValueError, 'm must be finite, got nan'),
        (dict(type='ArcFace', gradient='exact'), ValueError, "or 'straight_through', got 'exact'"),
        (dict(type='SphereFace', m=2.5), ValueError, 'm must be a whole number, got 2.5'),
        (dict(type='SphereFace', m=0), ValueError, 'm of SphereFace must be from 1 to 16, got 0'),
        (
            dict(type='LSoftmax', lambda_min=-1),
            ValueError,
            'lambda_min of LSoftmax must be at least 0',
        ),
        (
            dict(type='CombinedMargin', m1=0.5),
            ValueError,
            'm1 of CombinedMargin must be from 1 to 16',
        ),
        (dict(type='AdaFace', m=2), ValueError, 'm must be from 0 to below 1.571, got 2'),
        (dict(type='AdaFace', momentum=1.5), ValueError, 'momentum of AdaFace must be from 0 to 1'),
        (dict(type='CurricularFace', momentum=-1), ValueError, 'momentum of CurricularFace'),
        (dict(type='MagFace', norms=(0, 5)), ValueError, r'0 < l < u, got \(0, 5\)'),
        (dict(type='MagFace', margins=(0.5, 0.4)), ValueError, '0 <= low <= high < pi'),
        (dict(type='MagFace', penalty_weight=-1), ValueError, 'penalty_weight of MagFace'),
        (dict(type='SphereFaceR', m=0.9), ValueError, 'm of SphereFaceR must be from 1 to 16'),
        (dict(type='SphereFaceR', version='v3'), ValueError, "'v0', 'v1' or 'v2', got 'v3'"),
        (dict(type='UniFace', negative_weight=-1), ValueError, 'negative_weight of UniFace'),
        (dict(type='UniFace', bias='0'), TypeError, "bias of UniFace must be one number, got '0'"),
        (dict(type='ArcFace', m=True), TypeError, 'm must be a number, a list .*True'),
        (dict(type='CosFace', m=[0.1] * 12 + [True]), TypeError, 'm must be numbers, got True'),
        (
            dict(type='CosFace', m=torch.ones(CLASSES, 2)),
            TypeError,
            r'm must be numbers, got \[1.0',
        ),
        (dict(type='CosFace', m=np.full(12, 0.1)), ValueError, 'm has margins .* for 12 classes'),
        (dict(type='AdaFace', m=[0.1] * 12), ValueError, 'm has margins .* for 12 classes.*=13'),
        (dict(type='AdaFace', m='0.4'), TypeError, "m must be a number, a list .*'0.4'"),
        (dict(type='AdaFace', h=[1.0]), TypeError, 'h of AdaFace must be one number'),
        (
            dict(type='SphereFace', m=True),
            TypeError,
            'm of SphereFace must be one number, got True$',
        ),
        (dict(type='SphereFace', m='4'), TypeError, "m of SphereFace must be one number, got '4'$"),
        (
            dict(type='SphereFace', lambda_min=50, lambda_max=1),
            ValueError,
            'min=50 .*above .*max=1:',
        ),
        (dict(type='LSoftmax', lambda_max=0), ValueError, 'lambda_min=5.0 of LSoftmax is above'),
        (dict(type='MagFace', margins=0.5), ValueError, 'margins must be two angles.*got 0.5'),
        (dict(type='MagFace', margins=(0, 0.1, 0.2)), ValueError, 'margins must be two angles'),
        (dict(type='MagFace', norms='ab'), ValueError, "norms must be two lengths.*got 'ab'"),
    ],
)
def test_wrong_options_are_told(margin: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        MarginHead(CLASSES, CHANNELS, margin)


def test_margins_a_class_are_for_those_that_say_so() -> None:
    """The others name them."""
    takers = {
        ('AdaFace', 'm'),
        ('ArcFace', 'm'),
        ('CombinedMargin', 'm2'),
        ('CombinedMargin', 'm3'),
        ('CosFace', 'm'),
        ('CurricularFace', 'm'),
        ('UniFace', 'm'),
    }
    for name, option in takers:
        assert name in per_class_options()
        for given in (LIST, tuple(LIST), np.array(LIST), torch.tensor(LIST)):
            found = getattr(build_margin({'type': name, option: given}, CLASSES), option)
            assert found(torch.tensor([4, 0])).tolist() == pytest.approx([LIST[4], LIST[0]])
    for name, option in (
        ('SphereFace', 'm'),
        ('LSoftmax', 'm'),
        ('SphereFaceR', 'm'),
        ('CombinedMargin', 'm1'),
    ):
        for given in ([2] * CLASSES, np.full(CLASSES, 2), dict(counts=[1] * CLASSES)):
            with pytest.raises(TypeError, match=f'{option} of {name} must be one.*take one per cl'):
                build_margin({'type': name, option: given}, CLASSES)


# --- Set while training ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('name', 'options', 'option', 'value'),
    [
        ('ArcFace', dict(m=0.5), 'm', 0.2),
        ('CosFace', dict(m=LIST), 'm', 0),
        ('CombinedMargin', {}, 'm1', 2),
        ('CombinedMargin', {}, 'm2', 0.4),
        ('CombinedMargin', {}, 'm3', 0.4),
        ('AdaFace', {}, 'm', 0.2),
        ('AdaFace', {}, 'h', 2.0),
        ('CurricularFace', {}, 'm', 0),
        ('SphereFaceR', {}, 'm', 2),
        ('UniFace', {}, 'm', 0.1),
        ('SphereFace', dict(lambda_max=0, lambda_min=0), 'm', 2.0),
        ('SphereFace', {}, 'lambda_max', 30.0),
        ('UniFace', {}, 'negative_weight', 0.5),
        ('MagFace', dict(norms=(1, 5)), 'penalty_weight', 3),
    ],
)
def test_set_margin_is_as_built_so(
    name: str, options: dict[str, Any], option: str, value: float
) -> None:
    head = make_head(name, **options)
    before = gradients(make_head(name, **options), *batch())
    head.margin.set_margin(option, value)
    built = gradients(make_head(name, **{**options, option: value}), *batch())
    found = gradients(head, *batch())
    assert all(one.equal(other) for one, other in zip(found, built, strict=True))
    assert not found[0].equal(before[0])


@pytest.mark.parametrize(
    ('name', 'option', 'value', 'message'),
    [
        ('ArcFace', 'm2', 0.1, "ArcFace has no number named 'm2' to set; it has: m$"),
        ('ArcFace', 'easy_margin', 1, "no number named 'easy_margin'"),
        ('ArcFace', 'm', 3.2, 'm must be from 0 to below 3.142, got 3.2'),
        ('NormFace', 'm', 0.1, 'it has: none'),
        ('Softmax', 'has_bias', 1, 'it has: none'),
        ('SphereFaceR', 'm', 0.5, 'm of SphereFaceR must be from 1 to 16, got 0.5'),
        ('SphereFace', 'm', 2.5, 'm must be a whole number'),
        ('AdaFace', 'm', -0.1, 'm must be from 0 to below 1.571'),
        (
            'SphereFace',
            'lambda_min',
            2e3,
            'lambda_min=2000.0 of SphereFace is above lambda_max=1000',
        ),
        ('AdaFace', 'h', math.nan, 'h of AdaFace must be at least 0 and finite, got nan'),
        ('UniFace', 'bias', 1, "no number named 'bias' to set; it has: negative_weight, m$"),
    ],
)
def test_set_margin_refuses(name: str, option: str, value: float, message: str) -> None:
    margin = build_margin(dict(type=name), CLASSES)
    with pytest.raises(ValueError, match=message):
        margin.set_margin(option, value)


def test_uniface_begins_where_its_authors_do() -> None:
    default, told = (make_head('UniFace', classes=1000, **o).margin.bias for o in ({}, {'bias': 3}))
    assert default.item() == pytest.approx(math.log(10_000)) and told.item() == 3


def test_magface_price_is_logged_by_itself() -> None:
    head = make_head('MagFace', norms=(1, 5), penalty_weight=2.0)
    x = torch.zeros(2, CHANNELS)
    x[0, 0], x[1, 0] = 2, 50
    losses = head.loss((x,), samples(torch.tensor([0, 1])))
    assert losses['loss_length'].item() == pytest.approx((0.5 + 2 / 25) + (0.2 + 0.2))
    assert set(losses) == {'loss', 'loss_length', 'own_cosine'}
