"""Margin heads whose centres are sampled: losses, updates, checkpoints and errors."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from mmengine.optim import OptimWrapper
from torch import Tensor, nn
from torch.nn import functional as F

from mmdet_ext.catalog.cases import cases_of
from mmdet_ext.catalog.memory import peak_bytes
from mmdet_ext.face.heads import MarginHead
from tests._helpers.face.margin_heads import PATHS, build_head, samples, total

CLASSES, CHANNELS = 7, 8
MARGINS = [case for case in cases_of('margin')]
OPTIMIZERS = {
    'SGD': lambda params: torch.optim.SGD(
        params, lr=0.3, momentum=0.9, weight_decay=0.1, nesterov=True
    ),
    'AdamW': lambda params: torch.optim.AdamW(params, lr=0.05, weight_decay=0.5, amsgrad=True),
}


def draws_of(head: Any) -> list[tuple[Tensor, Tensor]]:
    """Return a list that gets the rows of the table, and the places of the labels, of each draw."""
    seen: list[tuple[Tensor, Tensor]] = []
    draw = head.sampled.draw

    def watched(labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rows, classes, places = draw(labels)
        each = head.num_subcenters
        seen.append((torch.cat([torch.arange(c * each, (c + 1) * each) for c in classes]), places))
        return rows, classes, places

    head.sampled.draw = watched
    return seen


def batch(seed: int, number: int = 6, classes: int = CLASSES) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(number, CHANNELS, generator=generator)
    return x, torch.randint(classes, (number,), generator=generator)


@pytest.mark.parametrize('path', PATHS)
@pytest.mark.parametrize('case', MARGINS, ids=str)
def test_loss_is_that_of_a_head_with_the_drawn_classes_alone(case: Any, path: str) -> None:
    margin = dict(type=case.name, **case.options)
    head = build_head(margin, sample_rate=0.6, num_subcenters=2, path=path, scale=9.0)
    nn.init.normal_(head.weight, std=0.4)
    seen = draws_of(head)
    x, _ = batch(1)
    labels = torch.tensor([5, 1, 1, 5, 2, 1])
    state = {k: v.clone() for k, v in head.state_dict().items() if k.startswith('margin.')}
    leaf = x.clone().requires_grad_()
    losses = head.loss((leaf,), samples(labels))
    total(losses).backward()
    ((place, places),) = seen
    assert len(place) == 2 * 4
    small = {k: v for k, v in case.options.items() if not isinstance(v, (list, dict))}
    one = build_head(
        dict(type=case.name, **small), num_classes=4, num_subcenters=2, path=path, scale=9.0
    )
    drawn = place[::2] // 2
    with torch.no_grad():
        one.weight.copy_(head.weight[place])
        for key, value in state.items():
            own = one.get_parameter(key) if key.endswith('bias') else one.get_buffer(key)
            own.copy_(value if value.dim() == 0 else value[drawn])
        for name, option in one.margin.named_children():
            values = getattr(head.margin, name).values
            option.values = None if values is None else values[drawn]
    other = x.clone().requires_grad_()
    expected = one.loss((other,), samples(places))
    total(expected).backward()
    assert losses.keys() == expected.keys()
    for key in losses:
        torch.testing.assert_close(losses[key], expected[key])
    torch.testing.assert_close(leaf.grad, other.grad)
    torch.testing.assert_close(head.weight_drawn.grad, one.weight.grad)
    assert head.weight.grad is None
    for key, value in one.margin.named_buffers():
        if value.dim() == 0:
            torch.testing.assert_close(head.margin.get_buffer(key), value)


class Twin(nn.Module):
    """Linear layer and ArcFace over centres that are all parameters, written down at once."""

    def __init__(self, head: MarginHead, layer: nn.Linear) -> None:
        super().__init__()
        self.weight = nn.Parameter(head.weight.clone())
        self.layer = copy.deepcopy(layer)

    def loss(self, x: Tensor, place: Tensor, places: Tensor) -> Tensor:
        cosine = F.normalize(self.layer(x)) @ F.normalize(self.weight[place]).t()
        own = F.one_hot(places, len(place)).bool()
        turned = (cosine.acos() + 0.5).cos()
        return F.cross_entropy(16 * torch.where(own, turned, cosine), places)


@pytest.mark.parametrize('every', [1, 3])
@pytest.mark.parametrize('clip', [None, dict(max_norm=0.5)], ids=['free', 'clipped'])
@pytest.mark.parametrize('name', OPTIMIZERS)
def test_only_drawn_rows_move_and_as_in_a_whole_table(name: str, clip: Any, every: int) -> None:
    """The twin has dense gradients, and gets the rows of no draw back after each step."""
    classes = 20
    head = build_head(num_classes=classes, sample_rate=0.3, scale=16.0)
    nn.init.normal_(head.weight, std=0.4)
    layer = nn.Linear(CHANNELS, CHANNELS)
    model, twin = nn.Sequential(head, layer), Twin(head, layer)
    seen = draws_of(head)
    ours, theirs = (
        OptimWrapper(OPTIMIZERS[name](part.parameters()), every, clip and dict(clip))
        for part in (model, twin)
    )
    drawn_ever = torch.zeros(classes, dtype=torch.bool)
    for step in range(9):
        # The number of images changes, and once there are more identities than are to be drawn.
        x, labels = batch(step, (4, 2, 12)[step % 3], classes)
        before = head.weight.clone()
        saved = twin.weight.detach().clone()
        state = {
            key: value.clone()
            for key, value in theirs.optimizer.state[twin.weight].items()
            if value.dim()
        }
        ours.update_params(head.loss((layer(x),), samples(labels))['loss'])
        theirs.update_params(twin.loss(x, *seen[-1]))
        moved = torch.zeros(classes, dtype=torch.bool)
        if (step + 1) % every == 0:
            moved[torch.cat([place for place, _ in seen[step + 1 - every :]])] = True
            drawn_ever |= moved
        with torch.no_grad():
            twin.weight[~moved] = saved[~moved]
            for key, value in theirs.optimizer.state[twin.weight].items():
                if value.dim():
                    value[~moved] = state.get(key, torch.zeros_like(value))[~moved]
        assert head.weight[~moved].equal(before[~moved])
        assert not moved.any() or not head.weight[moved].eq(before[moved]).all(1).any()
        torch.testing.assert_close(head.weight, twin.weight.detach(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(layer.weight, twin.layer.weight, rtol=1e-4, atol=1e-5)
    found = ours.optimizer.state[head.weight_drawn]
    wanted = theirs.optimizer.state[twin.weight]
    assert found.keys() == wanted.keys() and head.weight_drawn.shape == (0, CHANNELS)
    for key, value in wanted.items():
        torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-5)
        assert not value.dim() or not found[key][~drawn_ever].any()


def trained(head: Any, optimizer: Any, steps: range) -> None:
    """Train a head for some steps, each with its own batch."""
    for step in steps:
        x, labels = batch(step)
        head.loss((x,), samples(labels))['loss'].backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize('name', OPTIMIZERS)
def test_resumed_training_equals_continued_training(name: str) -> None:
    whole = build_head(sample_rate=0.5)
    optimizer = OPTIMIZERS[name](whole.parameters())
    trained(whole, optimizer, range(3))
    state = copy.deepcopy((whole.state_dict(), optimizer.state_dict()))
    trained(whole, optimizer, range(3, 6))
    # The seed is that of the run; the initial centres come from the checkpoint.
    resumed = build_head(sample_rate=0.5)
    again = OPTIMIZERS[name](resumed.parameters())
    resumed.load_state_dict(state[0])
    again.load_state_dict(state[1])
    trained(resumed, again, range(3, 6))
    assert resumed.weight.equal(whole.weight) and not whole.weight.equal(state[0]['weight'])
    one, two = (part.state_dict()['state'][0] for part in (optimizer, again))
    assert one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one if k != 'step')
    assert resumed.sampled.draws == 6


def test_draws_follow_from_seed_and_count() -> None:
    def drawn(seed: int, draws: int = 0) -> list[list[int]]:
        head = build_head(num_classes=40, sample_rate=0.2, seed=seed)
        head.sampled.draws = draws
        seen = draws_of(head)
        torch.rand(3)  # other random numbers do not matter
        for _ in range(3):
            head.loss((batch(0)[0],), samples(batch(0)[1]))
        return [place.tolist() for place, _ in seen]

    assert drawn(0) == drawn(0) and drawn(0)[1:] == drawn(0, 1)[:2]
    assert drawn(0) != drawn(1) and drawn(0)[0] != drawn(0)[1]


@pytest.mark.parametrize('rates', [(1.0, 0.4), (0.4, 1.0), (0.4, 0.7)], ids=str)
def test_checkpoints_load_whatever_the_rate(rates: tuple[float, float]) -> None:
    source = build_head('UniFace', seed=1, sample_rate=rates[0])
    optimizer = OPTIMIZERS['AdamW'](source.parameters())
    trained(source, optimizer, range(2))
    head = build_head('UniFace', seed=2, sample_rate=rates[1])
    found = OPTIMIZERS['AdamW'](head.parameters())
    assert not any(head.load_state_dict(copy.deepcopy(source.state_dict())))
    found.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert head.weight.equal(source.weight) and head.margin.bias.equal(source.margin.bias)
    table = found.state_dict()['state'][0]['exp_avg']
    assert table.equal(optimizer.state_dict()['state'][0]['exp_avg'])
    assert table.shape == head.weight.shape
    trained(head, found, range(2, 4))
    assert not head.weight.equal(source.weight)
    extra = {'weight_draws'} if rates[0] < 1 else set()
    assert source.state_dict().keys() - {'weight', 'margin.bias'} == extra


def test_rate_1_is_the_head_without_sampling() -> None:
    one, two = build_head(), build_head(sample_rate=1)
    x, labels = batch(0)
    assert [name for name, _ in two.named_parameters()] == ['weight'] and two.sampled is None
    values = [head.loss((x,), samples(labels))['loss'] for head in (one, two)]
    assert values[0].equal(values[1])
    # The same seed gives the same initial centres at any rate.
    assert build_head(sample_rate=0.1).weight.equal(one.weight)


def test_evaluation_uses_all_classes_and_draws_nothing() -> None:
    whole, head = build_head().eval(), build_head(sample_rate=0.3).eval()
    x, labels = batch(0)
    assert head.loss((x,), samples(labels))['loss'].equal(whole.loss((x,), samples(labels))['loss'])
    assert head((x,)).equal(whole((x,))) and head.sampled.draws == 0


def test_frozen_centres_stay_and_a_batch_without_images_keeps_the_graph() -> None:
    head = build_head(sample_rate=0.5, neck='fc').requires_grad_(False)
    x = batch(0)[0].requires_grad_()
    head.loss((x,), samples(batch(0)[1]))['loss'].backward()
    assert x.grad is not None and x.grad.any() and head.weight_drawn.grad is None
    head = build_head(sample_rate=0.5)
    none = torch.zeros(0, CHANNELS, requires_grad=True)
    head.loss((none,), [])['loss'].backward()
    assert head.weight_drawn.grad is not None and not head.weight_drawn.grad.any()


def test_a_step_that_a_loss_scaler_skips_changes_nothing() -> None:
    head = build_head(sample_rate=0.5)
    optimizer = OPTIMIZERS['SGD'](head.parameters())
    scaler = torch.amp.GradScaler('cpu', init_scale=16.0)
    for skipped in (False, True, False):
        before = head.weight.clone()
        x, labels = batch(3)
        with torch.autocast('cpu', torch.bfloat16):
            loss = head.loss((x.bfloat16(),), samples(labels))['loss']
        assert loss.dtype == torch.float32
        scaler.scale(loss * (torch.inf if skipped else 1)).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        assert head.weight.equal(before) == skipped and head.weight.isfinite().all()


def test_a_copy_trains_by_itself() -> None:
    head = build_head(sample_rate=0.5)
    other, before = copy.deepcopy(head), head.weight.clone()
    trained(other, OPTIMIZERS['SGD'](other.parameters()), range(2))
    assert head.weight.equal(before) and not other.weight.equal(before)


def test_several_losses_may_come_before_their_backward_passes() -> None:
    head = build_head(num_classes=30, sample_rate=0.2)
    seen = draws_of(head)
    losses = [head.loss((batch(k)[0],), samples(batch(k)[1]))['loss'] for k in range(3)]
    sum(losses).backward()
    rows = torch.cat([place for place, _ in seen]).unique()
    assert head.sampled.place.equal(rows) and head.weight_drawn.grad.any(1).all()


def test_memory_follows_the_drawn_rows() -> None:
    head = MarginHead(20_000, 32, dict(type='ArcFace'), path='exact', sample_rate=0.05)
    optimizer = OPTIMIZERS['SGD'](head.parameters())
    x, labels = torch.randn(32, 32), samples(torch.arange(32))

    def step() -> None:
        head.loss((x,), labels)['loss'].backward()
        optimizer.step()
        optimizer.zero_grad()

    step()  # makes the momentum of the whole table
    # Besides drawn rows there is the chunk of scores, and one random number per class.
    assert peak_bytes(step) < 6 * 0.05 * head.weight.nbytes + 4 * 32 * 1000 * 3 + 16 * 20_000
    assert peak_bytes(step) < 0.7 * head.weight.nbytes


def test_a_step_takes_the_memory_of_the_one_before() -> None:
    head = build_head(num_classes=40, sample_rate=0.5, path='exact')
    optimizer = OPTIMIZERS['AdamW'](head.parameters())
    places = []
    for _ in range(3):
        trained(head, optimizer, range(1))
        places.append({rows.data_ptr() for rows in head.sampled.spare})
    # The rows, and three tables of AdamW with amsgrad.
    assert len(places[1]) == 4 and places[1] == places[2]
    # A pass that keeps its graph beyond the step sees that its rows are other ones now.
    x, labels = batch(0)
    loss = head.loss((x,), samples(labels))['loss']
    loss.backward(retain_graph=True)
    optimizer.step()
    head.loss((x,), samples(labels))
    with pytest.raises(RuntimeError, match='modified by an inplace operation'):
        loss.backward()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(sample_rate=0), r'sample_rate must be above 0 and at most 1|in \[|above 0'),
        (dict(sample_rate=1.1), 'sample_rate must be'),
        (dict(sample_rate=float('nan')), 'sample_rate must be'),
        (
            dict(margin=None, aux_losses=dict(type='TripletLoss'), sample_rate=0.5),
            'sample_rate=0.5 samples the classes of a margin',
        ),
        (dict(filter_threshold=0), 'filter_threshold must be .*it is a cosine'),
        (dict(filter_threshold=1.5), 'filter_threshold must be'),
        (
            dict(margin='Softmax', filter_threshold=0.4),
            'compared with cosines, and Softmax has none: take a margin on normalised centres',
        ),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_head(**options)


def test_unsuitable_trainings_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    x, labels = batch(0)
    head = build_head(sample_rate=0.5)
    head.loss((x,), samples(labels))['loss'].backward()
    adagrad = torch.optim.Adagrad(head.parameters())
    adagrad.state[head.weight_drawn]['sum'] = torch.zeros(1, CHANNELS)
    with pytest.raises(TypeError, match="such as SGD, Adam or AdamW; Adagrad has 'sum'"):
        adagrad.step()
    head = build_head(sample_rate=0.5)
    sgd = OPTIMIZERS['SGD'](head.parameters())

    def closure() -> float:
        loss = head.loss((x,), samples(labels))['loss']
        loss.backward()
        return float(loss)

    with pytest.raises(RuntimeError, match='within the step of SGD, by a closure'):
        sgd.step(closure)
    head = build_head(sample_rate=0.5)
    sgd = OPTIMIZERS['SGD'](head.parameters())
    sgd.state[head.weight_drawn]['momentum_buffer'] = torch.zeros(3, CHANNELS)
    head.loss((x,), samples(labels))['loss'].backward()
    with pytest.raises(ValueError, match=r'momentum_buffer of SGD is \(3, 8\) for centres of'):
        sgd.step()
    monkeypatch.setattr('mmdet_ext.face.heads.sampled.get_world_size', lambda: 2)
    with pytest.raises(
        RuntimeError, match='sample_rate below 1 of MarginHead trains in one process, got 2'
    ):
        head.loss((x,), samples(labels))
