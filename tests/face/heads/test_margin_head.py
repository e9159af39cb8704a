"""The margin head: hard numbers, necks, prediction, memory, and what it refuses."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.registry import DefaultScope
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch.nn import functional as F

from mmdet_ext.catalog.cases import cases_of
from mmdet_ext.face.heads import MarginHead
from mmdet_ext.face.losses import TripletLoss
from mmdet_ext.face.margins.fixed import ArcFace
from mmdet_ext.registry import MODELS
from tests._helpers.memory import peak_bytes

CHANNELS = 8
ARC = dict(type='ArcFace')
PATHS = ('plain', 'exact')
# The table's margins a class are for seven classes.
CLASSES = 7


class Sample(SimpleNamespace):
    """A data sample that holds what it is given."""

    def __contains__(self, name: str) -> bool:
        return hasattr(self, name)


def samples(labels: Tensor | Sequence[int], **fields: Any) -> list[Any]:
    return [Sample(gt_label=label.view(1), **fields) for label in torch.as_tensor(labels)]


def make_head(margin: Any = ARC, seed: int = 0, **options: Any) -> Any:
    torch.manual_seed(seed)
    options = {'num_classes': CLASSES, 'in_channels': CHANNELS, **options}
    return MODELS.build(dict(type='mmdet_ext.MarginHead', margin=margin, **options))


def total(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack([value for key, value in losses.items() if 'loss' in key]).sum()


# --- Never NaN -----------------------------------------------------------------------------------

# A mean over many makes gradients small: batches of one and of few are harder.
SIZES, TRIALS = (1, 4, 96), 6
HARD = sum(SIZES)
LENGTHS = (1e-42, 1e-30, 1e-12, 1e-6, 1e-3, 1.0, 30.0, 6e4, 1e12, 1e30)


def hard_centres(rows: int, generator: torch.Generator) -> Tensor:
    """Random ones of all lengths; one is zero, one opposite to another, one the same as another."""
    weight = F.normalize(torch.randn(rows, CHANNELS, generator=generator))
    weight *= torch.tensor([1e-30, 1e-8, 1e-3, 0.1, 1.0, 1.0, 100.0])[
        torch.randint(7, (rows, 1), generator=generator)
    ]
    weight[0] = 0
    weight[-1] = -weight[-2]
    if rows > 4:
        weight[2] = 3 * weight[3]
    return weight


def hard_batch(weight: Tensor, centres: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Along and against the own centre and another's, zero, random; from 1e-42 to 1e30 long."""
    labels = torch.randint(len(weight) // centres, (HARD,), generator=generator)
    length = torch.tensor(LENGTHS)[torch.randint(len(LENGTHS), (HARD, 1), generator=generator)]
    # A centre of any length has a direction in float64.
    ray = F.normalize(weight.double()[labels * centres], dim=1, eps=1e-300).float()
    other = F.normalize(
        weight.double()[torch.randint(len(weight), (HARD,), generator=generator)], dim=1, eps=1e-300
    ).float()
    noise = F.normalize(torch.randn(HARD, CHANNELS, generator=generator))
    kinds = torch.stack(
        [
            ray,
            -ray,
            other,
            -other,
            0 * ray,
            noise,
            F.normalize(ray + 1e-4 * noise),
            F.normalize(1e-4 * noise - ray),
        ]
    )
    kind = torch.randint(len(kinds), (HARD,), generator=generator)
    return length * kinds[kind, torch.arange(HARD)], labels


def ids(case: Any) -> str:
    return '-'.join([case.name, *(f'{key}={value}' for key, value in case.options.items())])[:48]


@pytest.mark.parametrize('case', cases_of('margin'), ids=ids)
@pytest.mark.parametrize('path', PATHS)
def test_hard_cases_are_finite_in_value_and_gradient(case: Any, path: str) -> None:
    """Over all margins and both paths more than 20,000 samples."""
    generator = torch.Generator().manual_seed(1)
    halves = (torch.float32, torch.float16, torch.bfloat16)
    assert len(cases_of('margin')) * len(PATHS) * TRIALS * HARD > 20_000
    for trial in range(TRIALS):
        centres, dtype = 1 + trial % 2, halves[trial % 3]
        head = make_head(
            dict(type=case.name, **case.options),
            path=path,
            num_subcenters=centres,
            scale=(64.0, 1.0, 1000.0)[trial // 2],
            neck='fc' if trial in (2, 4) else 'none',
        )
        with torch.no_grad():
            head.weight.copy_(hard_centres(len(head.weight), generator))
            if head.neck is not None:
                # As hard behind it.
                nn.init.eye_(head.neck[0].weight), nn.init.zeros_(head.neck[0].bias)
        x, labels = hard_batch(head.weight.detach(), centres, generator)
        x = x.clamp(-6e4, 6e4).to(dtype) if dtype == torch.float16 else x.to(dtype)
        for leaf, own in zip(x.split(SIZES), labels.split(SIZES), strict=True):
            check_finite(head, leaf.clone().requires_grad_(), own, dtype)


def check_finite(head: Any, x: Tensor, labels: Tensor, dtype: torch.dtype) -> None:
    with torch.autocast('cpu', dtype=dtype, enabled=dtype != torch.float32):
        losses = head.loss((x,), samples(labels))
    for name, value in losses.items():
        assert value.dtype == torch.float32 and value.isfinite(), (len(x), name, value)
    head.zero_grad()
    total(losses).backward()
    for name, parameter in [('features', x), *head.named_parameters()]:
        bad = ~parameter.grad.isfinite()
        assert not bad.any(), (len(x), head.scale, dtype, name, bad.sum().item())
    assert all(buffer.isfinite().all() for buffer in head.buffers())


@pytest.mark.parametrize('name', sorted({case.name for case in cases_of('margin')}))
def test_collinear_features_turn_where_they_are_told(name: str) -> None:
    """On its centre a feature has no better place; beside it, it is drawn to it."""
    centre = F.normalize(torch.randn(1, CHANNELS, generator=torch.Generator().manual_seed(0)))
    head = make_head(dict(type=name), num_classes=2)
    with torch.no_grad():
        head.weight.copy_(torch.cat([centre, -centre]))
    aside = F.normalize(torch.randn(1, CHANNELS, generator=torch.Generator().manual_seed(1)))
    aside -= (aside * centre).sum() * centre
    for tilt in (1e-3, 0.1):
        x = (centre + tilt * aside).requires_grad_()
        value = head.loss((x,), samples([0]))['loss']
        (grad,) = torch.autograd.grad(value, x)
        across = (grad * aside).sum()
        # Dot products with both centres have no slope across.
        assert across.abs() < 1e-6 if name == 'Softmax' else across >= 0


def test_softmax_of_zero_centres_and_zero_features_learns() -> None:
    """A classifier that starts at zero, as many do: cross entropy, to the last gradient."""
    for path in PATHS:
        head = make_head(dict(type='Softmax', bias=True), path=path)
        nn.init.zeros_(head.weight)
        x = torch.randn(5, CHANNELS)
        x[2] = 0
        labels = torch.tensor([0, 1, 2, 2, 6])
        for _ in range(3):
            twin = head.weight.detach().clone().requires_grad_()
            bias = head.margin.bias.detach().clone().requires_grad_()
            leaf, other = x.clone().requires_grad_(), x.clone().requires_grad_()
            expected = F.cross_entropy(F.linear(other, twin, bias), labels)
            expected.backward()
            head.zero_grad()
            value = head.loss((leaf,), samples(labels))['loss']
            value.backward()
            assert value.item() == pytest.approx(expected.item(), rel=1e-6)
            for one, two in ((head.weight, twin), (head.margin.bias, bias), (leaf, other)):
                torch.testing.assert_close(one.grad, two.grad, rtol=1e-5, atol=1e-7)
            with torch.no_grad():
                head.weight -= head.weight.grad


# --- Neck and scores -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('neck', 'kinds'),
    [
        ('none', []),
        ('fc', ['Linear']),
        ('fc-bn', ['Linear', 'BatchNorm1d']),
        ('bn-fc-bn', ['BatchNorm1d', 'Linear', 'BatchNorm1d']),
        ('bn-dropout-fc-bn', ['BatchNorm1d', 'Dropout', 'Linear', 'BatchNorm1d']),
    ],
)
def test_necks(neck: str, kinds: list[str]) -> None:
    embedding = CHANNELS if neck == 'none' else 5
    head = make_head(
        neck=neck, embedding_channels=embedding, dropout=0.3 if 'dropout' in neck else 0.0
    )
    layers = list(head.neck or [])
    assert [type(layer).__name__ for layer in layers] == kinds
    assert head.weight.shape == (CLASSES, embedding)
    sizes = [layer.num_features for layer in layers if isinstance(layer, nn.BatchNorm1d)]
    assert sizes == {'fc-bn': [5], 'bn-fc-bn': [8, 5], 'bn-dropout-fc-bn': [8, 5]}.get(neck, [])
    # A norm behind the layer makes its bias useless.
    assert [layer.bias is not None for layer in layers if isinstance(layer, nn.Linear)] == (
        [] if neck == 'none' else [neck == 'fc']
    )
    assert [layer.p for layer in layers if isinstance(layer, nn.Dropout)] == [0.3] * (
        'dropout' in neck
    )
    head.eval()
    x = torch.randn(4, CHANNELS)
    expected = x
    for layer in layers:
        expected = layer(expected)
    assert head.pre_logits((torch.zeros(1), x)).equal(expected)


def test_neck_by_default() -> None:
    assert make_head().neck is None and make_head(embedding_channels=CHANNELS).neck is not None
    assert [type(n).__name__ for n in make_head(embedding_channels=3).neck][1] == 'Linear'


def test_feature_maps_are_flattened_before_a_neck_alone() -> None:
    x = torch.randn(3, 2, 2, 2)
    head = make_head(neck='fc', embedding_channels=4)
    assert head.pre_logits(x).equal(head.neck(x.flatten(1)))
    with pytest.raises(ValueError, match=r'features are \(3, 2, 2, 2\).*GlobalAveragePooling'):
        make_head().pre_logits(x)


@pytest.mark.parametrize(
    ('margin', 'expected'),
    [
        (dict(type='Softmax', bias=True), lambda x, w, b: x @ w.t() + b),
        (dict(type='LSoftmax'), lambda x, w, b: x @ w.t()),
        (dict(type='SphereFace'), lambda x, w, b: x @ F.normalize(w).t()),
        (dict(type='ArcFace'), lambda x, w, b: 30 * F.normalize(x) @ F.normalize(w).t()),
        (dict(type='UniFace'), lambda x, w, b: 30 * F.normalize(x) @ F.normalize(w).t() - b),
    ],
)
def test_scores_are_those_without_a_margin(margin: dict[str, Any], expected: Any) -> None:
    head = make_head(margin, scale=30.0)
    x = torch.randn(4, CHANNELS)
    bias = getattr(head.margin, 'bias', None)
    if bias is not None:
        nn.init.normal_(bias)
    wanted = expected(x, head.weight, bias)
    torch.testing.assert_close(head((x,)), wanted, rtol=1e-5, atol=1e-5)
    # Of several centres the nearest, and of full precision under autocast.
    many = make_head(margin, scale=30.0, num_subcenters=3)
    with torch.no_grad():
        many.weight[0::3], many.weight[1::3] = head.weight, head.weight
        many.weight[2::3] = torch.where(head.weight @ x[0] < 0, -1, 1)[:, None] * head.weight
    if bias is not None:
        many.margin.bias.data.copy_(bias)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = many((x,))
    raw = wanted if bias is None else wanted + (bias if margin['type'] == 'UniFace' else -bias)
    back = torch.zeros(()) if bias is None else wanted - raw
    flipped = torch.where(head.weight @ x[0] < 0, -1, 1) * raw
    torch.testing.assert_close(found, torch.maximum(raw, flipped) + back, rtol=1e-5, atol=1e-5)
    assert found.dtype == torch.float32
    assert head((x[:0],)).shape == many((x[:0],)).shape == (0, CLASSES)


def test_head_without_a_margin_gives_its_embedding() -> None:
    head = make_head(None, aux_losses=[dict(type='TripletLoss')])
    x = torch.randn(6, CHANNELS)
    assert head((x,)).equal(x)
    losses = head.loss((x,), samples([0, 0, 1, 1, 2, 2]))
    assert 'loss' not in losses and losses['loss_triplet'] > 0 and not hasattr(head, 'weight')


def test_parts_of_the_loss() -> None:
    x, labels = torch.randn(6, CHANNELS), [0, 0, 1, 1, 2, 2]
    plain = make_head().loss((x,), samples(labels))
    head = make_head(
        loss_weight=0.25,
        aux_losses=[
            dict(type='ContrastiveLoss'),
            dict(type='mmdet_ext.ContrastiveLoss', loss_weight=2.0),
            dict(type='CenterLoss', num_classes=CLASSES, in_channels=CHANNELS),
        ],
    )
    losses = head.loss((x,), samples(labels))
    assert losses['loss'].item() == pytest.approx(plain['loss'].item() / 4)
    assert losses['loss_contrastive_2'].item() == pytest.approx(
        2 * losses['loss_contrastive'].item()
    )
    assert losses['loss_center'] > 0
    assert losses['own_cosine'].item() == pytest.approx(
        F.cosine_similarity(x, head.weight[labels]).mean().item(), abs=1e-6
    )
    assert not losses['own_cosine'].requires_grad


def test_centre_loss_gets_its_sizes_from_the_head() -> None:
    head = make_head(
        embedding_channels=4,
        aux_losses=[
            dict(type='CenterLoss', alpha=0.25),
            dict(type='CenterLoss', num_classes=CLASSES),
            dict(type='mmdet_ext.CenterLoss', num_classes=CLASSES, in_channels=4),
        ],
    )
    assert [loss.centers.shape for loss in head.aux_losses.values()] == [(CLASSES, 4)] * 3
    assert [loss.alpha for loss in head.aux_losses.values()] == [0.25, 0.5, 0.5]


def test_shorter_ways_to_say_the_same() -> None:
    x, labels = torch.randn(6, CHANNELS), samples([0, 0, 1, 1, 2, 2])
    usual = make_head(ARC, aux_losses=[dict(type='TripletLoss')]).loss((x,), labels)
    for margin, aux in (
        ('ArcFace', dict(type='TripletLoss')),
        ('mmdet_ext.ArcFace', (dict(type=TripletLoss),)),
        (dict(type=ArcFace), [dict(type='mmdet_ext.TripletLoss')]),
    ):
        assert make_head(margin, aux_losses=aux).loss((x,), labels) == usual
    assert not make_head(aux_losses=None).aux_losses


@pytest.mark.parametrize('dtype', [torch.int32, torch.uint8, torch.int64], ids=str)
def test_labels_of_any_whole_type(dtype: torch.dtype) -> None:
    x = torch.randn(3, CHANNELS)
    for path in PATHS:
        expected = make_head(path=path).loss((x,), samples([0, 5, 6]))['loss']
        found = make_head(path=path).loss((x,), samples(torch.tensor([0, 5, 6], dtype=dtype)))
        assert found['loss'].equal(expected)


def test_empty_batch_keeps_the_graph() -> None:
    for path in PATHS:
        head = make_head(path=path, neck='fc', num_subcenters=2)
        x = torch.zeros(0, CHANNELS, requires_grad=True)
        losses = head.loss((x,), [])
        assert losses['loss'] == 0 and losses['own_cosine'] == 0
        losses['loss'].backward()
        assert all(p.grad is not None and not p.grad.any() for p in (x, *head.parameters()))
        assert head.predict((x,), []) == []


def test_path_is_chosen_by_the_size_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    from mmdet_ext.functional.embedding.competition import class_competition as whole

    seen: list[str] = []

    def watch(*args: Any, path: Any, **options: Any) -> Any:
        seen.append(path)
        return whole(*args, path=path, **options)

    monkeypatch.setattr('mmdet_ext.face.heads.margin_head.class_competition', watch)
    for path, centres, number in (
        ('auto', 1, 64),
        ('auto', 1, 65),
        ('auto', 2, 33),
        ('plain', 1, 65),
        ('exact', 1, 1),
    ):
        head = make_head(num_classes=1024, path=path, num_subcenters=centres)
        head.loss((torch.randn(number, CHANNELS),), samples([0] * number))
    assert seen == ['plain', 'exact', 'exact', 'plain', 'exact']


@pytest.mark.parametrize('name', [case.name for case in cases_of('margin') if not case.options])
def test_memory_of_every_margin(name: str) -> None:
    """The table of 64 x 20,000 scores is 4.9 MiB; several of it are what stock holds."""
    head = make_head(dict(type=name), num_classes=20_000, in_channels=32, path='exact')
    labels = samples(torch.arange(64))
    x = torch.randn(64, 32, requires_grad=True)

    def step() -> None:
        total(head.loss((x,), labels)).backward()

    held = peak_bytes(step)
    own = head.weight.nbytes + x.nbytes + 4 * 20_000
    assert held - own < 6 * 2**20
    head.eval()
    with torch.no_grad():
        assert peak_bytes(lambda: head.loss((x,), labels)) < 4.5 * 2**20


@pytest.mark.parametrize('path', PATHS)
def test_frozen_centres_and_frozen_features(path: str) -> None:
    x = torch.randn(6, CHANNELS)
    whole = make_head(path=path)
    leaf = x.clone().requires_grad_()
    whole.loss((leaf,), samples([0, 1, 2, 3, 4, 5]))['loss'].backward()
    head = make_head(path=path)
    head.loss((x,), samples([0, 1, 2, 3, 4, 5]))['loss'].backward()
    torch.testing.assert_close(head.weight.grad, whole.weight.grad)
    frozen = make_head(path=path).requires_grad_(False)
    again = x.clone().requires_grad_()
    frozen.loss((again,), samples([0, 1, 2, 3, 4, 5]))['loss'].backward()
    torch.testing.assert_close(again.grad, leaf.grad)
    assert frozen.weight.grad is None


def test_seed_makes_the_centres_and_state_carries_them() -> None:
    one, two, other = make_head(seed=3), make_head(seed=3), make_head(seed=4)
    assert one.weight.equal(two.weight) and not one.weight.equal(other.weight)
    assert 0.005 < make_head(num_classes=500).weight.std() < 0.015
    other.load_state_dict(one.state_dict())
    x = torch.randn(4, CHANNELS)
    assert one((x,)).equal(other((x,)))


def test_gradients_agree_under_checkpointing() -> None:
    from torch.utils.checkpoint import checkpoint

    grads = []
    for use in (False, True):
        head = make_head(path='exact', neck='fc')
        x = torch.arange(4 * CHANNELS).view(4, -1).float().sin().requires_grad_()

        def form(x: Tensor, head: MarginHead = head) -> Tensor:
            return head.loss((x,), samples([0, 1, 2, 3]))['loss']

        (checkpoint(form, x, use_reentrant=False) if use else form(x)).backward()
        grads.append([x.grad, *(p.grad for p in head.parameters())])
    assert all(one.equal(two) and one.any() for one, two in zip(*grads, strict=True))


# --- Prediction -----------------------------------------------------------------------------------


def elements(number: int) -> list[BaseDataElement]:
    return [BaseDataElement(metainfo=dict(sample_idx=i)) for i in range(number)]


def test_embedding_is_written_with_its_length_in_full_precision() -> None:
    head = make_head()
    x = 7 * torch.randn(3, CHANNELS)
    given = elements(3)
    found = head.predict((x.half(),), given)
    assert all(one is two for one, two in zip(found, given, strict=True))
    for i, sample in enumerate(given):
        assert sample.embedding.equal(x[i].half().float()) and sample.sample_idx == i
    assert [one.embedding.tolist() for one in head.predict((x,))] == x.tolist()


@pytest.mark.parametrize('number', [1, 3])
def test_mirror_images_are_fused(number: int) -> None:
    x = torch.randn(2 * number, CHANNELS)
    for given in (elements(number), None):
        for fusion, expected in (
            ('concat', torch.cat([x[:number], x[number:]], 1)),
            ('sum', x[:number] + x[number:]),
        ):
            found = make_head(flip_fusion=fusion).predict((x,), given)
            assert torch.stack([sample.embedding for sample in found]).equal(expected)


@pytest.mark.parametrize(
    ('fusion', 'embeddings', 'wanted'), [('concat', 3, 6), ('sum', 4, 6), (None, 6, 3)]
)
def test_mirror_images_that_are_not_there_or_not_wanted(
    fusion: Any, embeddings: int, wanted: int
) -> None:
    message = f'flip_fusion={fusion!r} wants {wanted} embeddings for 3 pictures, got {embeddings}'
    with pytest.raises(ValueError, match=f'{message}.*flip_at_test'):
        make_head(flip_fusion=fusion).predict((torch.zeros(embeddings, CHANNELS),), elements(3))
    if fusion:
        with pytest.raises(ValueError, match='wants 2 embeddings for 1 pictures, got 3'):
            make_head(flip_fusion=fusion).predict((torch.zeros(3, CHANNELS),))


# --- Names and scopes -----------------------------------------------------------------------------


@pytest.fixture(params=['mmdet', 'mmpretrain', 'mmengine', 'mmdet_ext'])
def scope(request: Any) -> Iterator[str]:
    with DefaultScope.overwrite_default_scope(request.param):
        yield request.param


@pytest.mark.parametrize('name', sorted({case.name for case in cases_of('margin')}))
def test_names_in_each_scope(name: str, scope: str) -> None:
    heads = [make_head(dict(type=f'{prefix}{name}')) for prefix in ('', 'mmdet_ext.')]
    assert [type(head.margin).__name__ for head in heads] == [name] * 2
    x = torch.randn(4, CHANNELS)
    values = [head.loss((x,), samples([0, 1, 2, 3]))['loss'] for head in heads]
    assert values[0].equal(values[1]) and values[0] > 0


# --- Errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('options', 'error', 'message'),
    [
        (dict(margin=dict(type='ArcFase')), KeyError, "'ArcFase'; did you mean 'ArcFace'"),
        (dict(margin=dict(type='mmdet_ext.CosFase')), KeyError, "did you mean 'CosFace'"),
        (dict(margin=dict(type='Magic')), KeyError, "'Magic'.*AdaFace, ArcFace, .*UniFace"),
        (
            dict(margin=dict(type='mmpretrain.ArcFaceClsHead')),
            KeyError,
            'mmpretrain.ArcFaceClsHead',
        ),
        (
            dict(margin=dict(type='torch.nn.Linear', in_features=1)),
            KeyError,
            'no margin named .torch',
        ),
        (dict(margin='ArcFase'), KeyError, "did you mean 'ArcFace'"),
        (
            dict(margin=dict(type='mmdet.ArcFace')),
            KeyError,
            "no margin named 'mmdet.ArcFace'; there are, with or without 'mmdet_ext.': AdaFace, ArcFace",
        ),
        (dict(margin=dict(type=nn.Linear)), KeyError, 'no margin named .*Linear'),
        (dict(margin=0.5), TypeError, r"margin must be dict\(type='ArcFace', ...\) or .*, got 0.5"),
        (dict(margin=dict(m=0.5)), TypeError, r"margin must be dict\(type='ArcFace', ...\)"),
        (dict(margin=dict(type='ArcFace', margin=0.5)), TypeError, "no option 'margin'.*m, easy_m"),
        (
            dict(margin=dict(type='ArcFace', easy_margn=True)),
            TypeError,
            "did you mean 'easy_margin'",
        ),
        (dict(margin=None), ValueError, r"give a margin, such as margin=dict\(type='ArcFace'\)"),
        (dict(num_class=3), TypeError, "no option 'num_class'; did you mean 'num_classes'"),
        (dict(num_classes=0), ValueError, 'num_classes must be a whole number from 1 on, got 0'),
        (dict(in_channels=2.5), ValueError, 'in_channels must be a whole number.*2.5'),
        (dict(num_subcenters=0), ValueError, 'num_subcenters must be'),
        (dict(embedding_channels=0), ValueError, 'embedding_channels must be .* got 0'),
        (dict(embedding_channels=-4), ValueError, 'embedding_channels must be .* got -4'),
        (dict(scale=0), ValueError, 'scale must be above 0 and finite, got 0'),
        (dict(scale=math.inf), ValueError, 'scale must be above 0 and finite, got inf'),
        (dict(scale=math.nan), ValueError, 'scale must be above 0'),
        (dict(scale='auto'), ValueError, "scale must be above 0 and finite, got 'auto'"),
        (dict(scale=True), ValueError, 'scale must be above 0 and finite, got True'),
        (dict(loss_weight=-1), ValueError, 'loss_weight must be at least 0 and finite, got -1'),
        (dict(loss_weight=math.nan), ValueError, 'loss_weight must be at least 0 .* got nan'),
        (dict(num_classes='7'), ValueError, "num_classes must be a whole number .* got '7'"),
        (dict(num_classes=None), ValueError, 'num_classes must be a whole number .* got None'),
        (dict(num_classes=math.inf), ValueError, 'num_classes must be a whole number .* got inf'),
        (dict(neck='linear'), ValueError, "neck must be one of .*'bn-fc-bn'.*, got 'linear'"),
        (
            dict(neck='none', embedding_channels=4),
            ValueError,
            '=4 differs from in_channels=8.*a neck',
        ),
        (dict(neck='fc', dropout=0.1), ValueError, "dropout=0.1 is for neck='bn-dropout-fc-bn'"),
        (dict(path='fast'), ValueError, "path must be one of .*'auto', 'plain', 'exact'.*'fast'"),
        (
            dict(flip_fusion='mean'),
            ValueError,
            "flip_fusion must be one of .*'concat', 'sum'.*'mean'",
        ),
        (dict(aux_losses=[dict(type='FocalLoss')]), TypeError, 'losses on features and labels'),
        (dict(aux_losses=[dict(type='TripleLoss')]), KeyError, "did you mean 'TripletLoss'"),
        (
            dict(aux_losses=[dict(type='Trip')]),
            KeyError,
            "which are CenterLoss, ContrastiveLoss, TripletLoss; got 'Trip'",
        ),
        (
            dict(aux_losses=[dict(type='mmdet.TripletLoss')]),
            TypeError,
            'which are .*mmdet.TripletLoss',
        ),
        (
            dict(aux_losses=[dict(margin=1)]),
            TypeError,
            r"list of dict\(type='TripletLoss', ...\), got",
        ),
        (dict(aux_losses='TripletLoss'), TypeError, r"list of dict\(type='TripletLoss', .* 'T' in"),
        (
            dict(aux_losses=[dict(type='CenterLoss', num_classes=5)]),
            ValueError,
            'num_classes=5 of CenterLoss in aux_losses differs from 7 of the head: leave it out',
        ),
        (
            dict(aux_losses=[dict(type='CenterLoss', in_channels=8)], embedding_channels=4),
            ValueError,
            'in_channels=8 of CenterLoss in aux_losses differs from 4 of the head',
        ),
        (dict(margin=None, aux_losses=None), ValueError, 'give a margin'),
    ],
)
def test_wrong_options_are_told(options: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        make_head(**options)


@pytest.mark.parametrize('path', PATHS)
def test_labels_out_of_range_are_counted_and_the_picture_named(path: str) -> None:
    head = make_head(path=path)
    data = samples([0, 3, 7, 6, -1])
    for i, sample in enumerate(data):
        sample.img_path = f'faces/{i}.png'
    message = (
        r'2 of 5 labels are not from 0 to 6 \(num_classes=7\), the first is 7 of '
        r'faces/2.png: compare num_classes'
    )
    with pytest.raises(ValueError, match=message):
        head.loss((torch.randn(5, CHANNELS),), data)
    with pytest.raises(ValueError, match='1 of 1 labels .* the first is 9: compare'):
        head.loss((torch.randn(1, CHANNELS),), samples([9]))


def test_labels_that_are_none() -> None:
    head, x = make_head(), torch.randn(2, CHANNELS)
    with pytest.raises(ValueError, match='gt_score: a margin is for one identity.*Mixup, CutMix'):
        head.loss((x,), samples([0, 1], gt_score=torch.tensor([0.5, 0.5])))
    with pytest.raises(ValueError, match='data sample 1 has no gt_label, the identity of its pict'):
        head.loss((x,), [*samples([0]), Sample()])
    with pytest.raises(ValueError, match='data sample 0 has no gt_label'):
        head.loss((x,), elements(2))
    with pytest.raises(ValueError, match='hold 3 labels for 2 pictures: one each'):
        head.loss((x,), [Sample(gt_label=torch.tensor([0, 1])), Sample(gt_label=torch.tensor([2]))])
    with pytest.raises(ValueError, match='labels must be whole numbers, got torch.float32'):
        head.loss((x,), samples(torch.tensor([0.0, 1.0])))


def test_features_of_other_channels() -> None:
    for head in (make_head(), make_head(neck='fc')):
        with pytest.raises(ValueError, match=r'in_channels is 8, the features are \(2, 9\)'):
            head.loss((torch.randn(2, 9),), samples([0, 1]))
