"""Hooks of recognition: schedules of margins, and pictures of embeddings."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import random
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel, MMDistributedDataParallel
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from PIL import Image
from torch import Tensor, nn

from mmdet_ext.face.heads import MarginHead
from mmdet_ext.face.hooks import FeatureScatterHook, MarginScheduleHook
from mmdet_ext.face.embeddings import evaluating, untouched_random_state
from mmdet_ext.registry import HOOKS
from tests._helpers.configs import CONFIGS

EPOCHS, STEPS = 4, 3


class Points:
    """Twelve points of four numbers a class, told apart by their sign, as a data set."""

    def __init__(self, classes: tuple[str, ...] = ('a', 'b', 'c'), noise: bool = False) -> None:
        self.metainfo = {'classes': classes}
        self.noise = noise
        rng = np.random.default_rng(0)
        self.points = rng.normal(size=(12 * len(classes), 4)).astype(np.float32)
        self.asked: list[int] = []

    def __len__(self) -> int:
        return len(self.points)

    def get_data_info(self, place: int) -> dict[str, Any]:
        return {'gt_label': place % len(self.metainfo['classes'])}

    def __getitem__(self, place: int) -> dict[str, Any]:
        self.asked.append(place)
        sample = BaseDataElement(metainfo={'sample_idx': place})
        sample.set_field(torch.tensor([self.get_data_info(place)['gt_label']]), 'gt_label')
        point = torch.tensor(self.points[place])
        if self.noise:
            point = point + random.random() + float(np.random.rand()) + torch.rand(())
        return {'inputs': point, 'data_samples': sample}


class Net(BaseModel):
    """A linear layer with dropout, in front of a margin head."""

    def __init__(self, margin: dict[str, Any], channels: int = 2, **options: Any) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, channels), nn.Dropout(0.1))
        self.head = MarginHead(3, channels, margin=margin, scale=8.0, **options)
        self.frozen = nn.Dropout().eval()

    def forward(self, inputs: Any, data_samples: Any = None, mode: str = 'tensor') -> Any:
        x = self.layers(inputs if isinstance(inputs, Tensor) else torch.stack(inputs))
        if mode == 'loss':
            return self.head.loss(x, data_samples)
        return self.head.predict(x, data_samples)


class Watch(Hook):
    """Notes head and margin at each step."""

    priority = 'VERY_LOW'

    def __init__(self) -> None:
        self.seen: list[tuple[float, Any]] = []
        self.modes: list[tuple[bool, bool]] = []

    def before_train_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        head = runner.model.head
        self.seen.append((head.scale, head.margin.m if hasattr(head.margin, 'm') else None))
        self.seen[-1] = (head.scale, getattr(self.seen[-1][1], 'number', self.seen[-1][1]))
        self.modes.append((runner.model.layers.training, runner.model.frozen.training))


def make_runner(
    tmp_path: Path,
    hooks: list[Any],
    model: nn.Module | None = None,
    dataset: Any = None,
    epochs: int = EPOCHS,
    by_epoch: bool = True,
    val: Any = None,
    **options: Any,
) -> tuple[Runner, Watch]:
    torch.manual_seed(0)
    dataset = dataset or Points()
    loader = dict(
        batch_size=len(dataset) // STEPS,
        num_workers=0,
        dataset=dataset,
        sampler=dict(type='DefaultSampler', shuffle=True),
    )
    cfg = (
        dict(type='EpochBasedTrainLoop', max_epochs=epochs)
        if by_epoch
        else dict(type='IterBasedTrainLoop', max_iters=epochs * STEPS)
    )
    if val is not None:
        options.update(
            val_dataloader={**loader, 'dataset': val},
            val_cfg=dict(type='ValLoop'),
            val_evaluator=dict(type='DumpResults', out_file_path=str(tmp_path / 'x.pkl')),
        )
    runner = Runner(
        model=model or Net(dict(type='ArcFace', m=0.1)),
        work_dir=str(tmp_path),
        train_dataloader=loader,
        train_cfg=cfg,
        custom_hooks=hooks,
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        randomness=dict(seed=1),
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1)),
        experiment_name=f'hooks_{random.Random().random()}',
        log_level='WARNING',
        **options,
    )
    watch = Watch()
    runner.register_hook(watch)
    return runner, watch


def scalars(runner: Runner) -> list[dict[str, Any]]:
    lines = (Path(runner.log_dir) / 'vis_data' / 'scalars.json').read_text().splitlines()
    return [line for line in map(json.loads, lines) if 'loss' in line]


# The schedule


def test_cosine_is_half_way_in_the_middle() -> None:
    hook = MarginScheduleHook(start=0.2, stop=0.6, begin=1, end=5, kind='cosine')
    values = [hook.value_at(time, last=9) for time in range(10)]
    expected = [0.2] + [0.4 - 0.2 * math.cos(math.pi * k / 4) for k in range(5)] + [0.6] * 4
    assert values == pytest.approx(expected, abs=1e-12)
    assert values[0] == 0.2 and values[-1] == 0.6


def test_steps_hold_until_the_next() -> None:
    hook = MarginScheduleHook(kind='step', values=[(1, 0.1), (3, 0.5)])
    assert [hook.value_at(time, last=5) for time in range(6)] == [0.1, 0.1, 0.1, 0.5, 0.5, 0.5]


def test_training_of_one_epoch_has_the_stop() -> None:
    assert MarginScheduleHook(start=0.0, stop=0.5).value_at(0, last=0) == 0.5
    assert MarginScheduleHook(start=0.0, stop=0.5, begin=9).value_at(4, last=4) == 0.5


def test_begin_after_the_end_of_training_given_by_hand_is_never_reached() -> None:
    hook = MarginScheduleHook(start=0.0, stop=0.5, begin=9, end=12)
    assert [hook.value_at(time, last=4) for time in range(5)] == [0.0] * 5


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(start=0), 'takes start and stop'),
        (dict(start=0, stop=1, values=[(0, 1)]), "values are for kind='step'"),
        (dict(kind='step'), 'at least one pair, got None'),
        (dict(kind='step', values=[]), r'at least one pair, got \[\]'),
        (dict(kind='step', values=[(0, 1, 2)]), 'at least one pair'),
        (dict(kind='step', values=[(0, 1), (0, 2)]), r'must ascend, got \[0, 0\]'),
        (dict(kind='step', values=[(3, 1), (1, 2)]), r'must ascend, got \[3, 1\]'),
        (dict(kind='step', values=[(-1, 1)]), 'whole number from 0 on, got -1'),
        (dict(kind='step', values=[(0, 1)], start=1), 'leave start, stop, begin'),
        (dict(kind='exp', start=0, stop=1), "kind must be one of .* got 'exp'"),
        (dict(start=0, stop=1, begin=-1), 'begin must be a whole number from 0 on, got -1'),
        (dict(start=0, stop=1, begin=1.5), 'begin must be a whole number from 0 on, got 1.5'),
        (dict(start=0, stop=1, begin=3, end=3), 'end must be after begin=3, got 3'),
        (dict(start=math.inf, stop=1), 'start must be finite, got inf'),
        (dict(start=0, stop=math.nan), 'stop must be finite, got nan'),
        (dict(param='scale', start=0, stop=64), 'scale must be above 0, got 0.0'),
        (dict(param='', start=0, stop=64), "param must be 'scale' or"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MarginScheduleHook(**options)


def test_value_that_is_no_number() -> None:
    with pytest.raises(TypeError, match="start must be a number, got '0'"):
        MarginScheduleHook(start='0', stop=1)  # type: ignore[arg-type]


def test_margin_and_scale_together_and_logged(tmp_path: Path) -> None:
    hooks = [
        dict(type='mmdet_ext.MarginScheduleHook', param='m', start=0.0, stop=0.3),
        dict(type='mmdet_ext.MarginScheduleHook', param='scale', start=8, stop=41, by_epoch=False),
    ]
    runner, watch = make_runner(tmp_path, hooks)
    runner.train()
    steps = EPOCHS * STEPS
    margins = np.repeat(np.linspace(0, 0.3, EPOCHS), STEPS)
    assert np.allclose([m for _, m in watch.seen], margins, atol=1e-12)
    assert np.allclose([s for s, _ in watch.seen], np.linspace(8, 41, steps))
    lines = scalars(runner)
    assert [line['margin_m'] for line in lines] == pytest.approx(margins)
    assert [line['margin_scale'] for line in lines] == pytest.approx(np.linspace(8, 41, steps))


def test_the_margin_set_is_the_one_that_is_trained_with(tmp_path: Path) -> None:
    hook = dict(type='mmdet_ext.MarginScheduleHook', kind='step', values=[(0, 0.4)])
    weights = []
    for name, hooks, margin in (('set', [hook], 0.0), ('built', [], 0.4), ('other', [], 0.0)):
        torch.manual_seed(3)
        runner, _ = make_runner(tmp_path / name, hooks, Net(dict(type='ArcFace', m=margin)))
        runner.train()
        weights.append(runner.model.head.weight.detach().clone())
    assert torch.equal(weights[0], weights[1])
    assert not torch.allclose(weights[0], weights[2], atol=1e-4)


def test_resumed_training_goes_on_as_if_uninterrupted(tmp_path: Path) -> None:
    hooks = [dict(type='mmdet_ext.MarginScheduleHook', start=0.0, stop=0.3, by_epoch=False)]
    options: dict[str, Any] = {}
    whole, seen = make_runner(tmp_path / 'whole', hooks)
    whole.train()
    first, _ = make_runner(tmp_path / 'parts', hooks, **options)
    first.register_hook(StopAfter(2))
    first.train()
    second, rest = make_runner(
        tmp_path / 'parts',
        hooks,
        resume=True,
        load_from=str(tmp_path / 'parts' / 'epoch_2.pth'),
    )
    second.train()
    assert len(rest.seen) == 2 * STEPS
    assert rest.seen == seen.seen[2 * STEPS :]


class StopAfter(Hook):
    """Ends training after some epochs, as a crash would."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def after_train_epoch(self, runner: Any) -> None:
        if runner.epoch + 1 == self.epochs:
            runner.train_loop.stop_training = True


def test_head_within_a_wrapped_model(tmp_path: Path) -> None:
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{tmp_path}/rendezvous', rank=0, world_size=1
    )
    try:
        wrapped = MMDistributedDataParallel(Net(dict(type='CombinedMargin')))
        hooks = [
            MarginScheduleHook(param='m2', start=0.5, stop=0.2),
            MarginScheduleHook(param='scale', start=30, stop=20),
        ]
        runner, _ = make_runner(tmp_path, [])
        runner.model = wrapped
        for hook in (*hooks, FeatureScatterHook(dataset='train')):
            hook.before_train(runner)
    finally:
        torch.distributed.destroy_process_group()
    assert wrapped.module.head.margin.m2(torch.zeros(1)) == 0.5
    assert wrapped.module.head.scale == 30
    assert drawings(tmp_path / 'scatter') == ['epoch_000000.png']


@pytest.mark.parametrize(
    ('margin', 'options', 'message'),
    [
        (dict(type='ArcFace'), dict(param='m3'), r'ArcFace has no number named .m3.*: .*\bm\b'),
        (dict(type='ArcFace'), dict(param='easy_margin'), "no number named 'easy_margin'"),
        (dict(type='ArcFace'), dict(stop=4.0), 'm must be from 0 to below 3.142, got 4.0'),
        (dict(type='ArcFace', m=[0.1, 0.2, 0.3]), {}, 'm of ArcFace has a value per class'),
        (dict(type='Softmax'), dict(param='scale', start=1), 'Softmax .* makes no use of scale'),
    ],
)
def test_margin_that_does_not_fit_is_told_before_training(
    tmp_path: Path, margin: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    hook = MarginScheduleHook(**{'start': 0.0, 'stop': 0.5, **options})
    runner, watch = make_runner(tmp_path, [hook], Net(margin))
    with pytest.raises(ValueError, match=message):
        runner.train()
    assert watch.seen == []


def test_two_hooks_for_one_number(tmp_path: Path) -> None:
    hooks = [
        MarginScheduleHook(start=0.0, stop=0.5, end=2),
        MarginScheduleHook(start=0.5, stop=0.4, begin=2),
    ]
    runner, _ = make_runner(tmp_path, hooks)
    with pytest.raises(ValueError, match="2 MarginScheduleHook set 'm'"):
        runner.train()


def test_model_without_a_margin_head(tmp_path: Path) -> None:
    class Headless(Net):
        def __init__(self) -> None:
            super().__init__(dict(type='ArcFace'))
            self.margin_head = self.head
            del self.head

    runner, _ = make_runner(tmp_path, [MarginScheduleHook(start=0.0, stop=0.5)], Headless())
    with pytest.raises(ValueError, match='the head of Headless is none'):
        runner.train()


def test_steps_where_there_are_no_epochs(tmp_path: Path) -> None:
    runner, _ = make_runner(tmp_path, [MarginScheduleHook(start=0.0, stop=0.5)], by_epoch=False)
    with pytest.raises(ValueError, match='set by_epoch=False'):
        runner.train()
    hooks = [MarginScheduleHook(start=0.0, stop=0.55, by_epoch=False)]
    runner, watch = make_runner(tmp_path / 'steps', hooks, by_epoch=False)
    runner.train()
    assert np.allclose([m for _, m in watch.seen], np.linspace(0, 0.55, EPOCHS * STEPS))


# The scatter


def drawings(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob('*.png'))


def test_drawn_at_first_at_times_and_at_last(tmp_path: Path) -> None:
    hook = HOOKS.build(dict(type='mmdet_ext.FeatureScatterHook', interval=3, dataset='train'))
    runner, _ = make_runner(tmp_path, [hook])
    runner.train()
    folder = tmp_path / 'scatter'
    names = [f'epoch_{epoch:06d}.png' for epoch in (0, 3, 4)]
    assert drawings(folder) == names
    shown = Path(runner.log_dir) / 'vis_data' / 'vis_image'
    assert sorted(path.name for path in shown.iterdir()) == [f'scatter_{k}.png' for k in (0, 3, 4)]
    with Image.open(folder / 'scatter.gif') as animation, Image.open(folder / names[0]) as frame:
        assert animation.n_frames == 3
        assert animation.size == frame.size
    assert not list(folder.glob('*.part'))


def test_training_is_as_without_it(tmp_path: Path) -> None:
    weights, modes, states = [], [], []
    for name, hooks in (
        ('without', []),
        ('with', [FeatureScatterHook(interval=1, dataset='train', animation=False)]),
    ):
        runner, watch = make_runner(tmp_path / name, hooks, dataset=Points(noise=True))
        runner.train()
        weights.append([parameter.detach().clone() for parameter in runner.model.parameters()])
        modes.append(watch.modes)
        states.append((random.random(), np.random.rand(), torch.rand(1).item()))
    assert drawings(tmp_path / 'with' / 'scatter')
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))
    assert modes[0] == modes[1]
    assert states[0] == states[1]


def test_modes_and_random_numbers_come_back_after_an_error() -> None:
    net = Net(dict(type='ArcFace'))
    net.layers.train()
    net.head.eval()
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    expected = (random.random(), np.random.rand(), torch.rand(1).item())
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    with pytest.raises(KeyError), evaluating(net), untouched_random_state():
        assert not net.layers[1].training
        random.random(), np.random.rand(), torch.rand(1)
        raise KeyError
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected
    assert net.layers[1].training and not net.head.training and not net.frozen.training


def seen_by(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is handed on to be drawn."""
    from mmdet_ext.face.hooks import feature_scatter

    drawn: list[Any] = []

    def draw(scatter: Any, title: str, **options: Any) -> np.ndarray:
        drawn.append((scatter, title, options))
        # Such as are equal become one frame of an animation.
        return np.full((8, 8, 3), 40 * len(drawn), np.uint8)

    monkeypatch.setattr(feature_scatter, 'draw_scatter', draw)
    return drawn


def test_points_are_the_embeddings_at_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = seen_by(monkeypatch)
    val = Points(('b', 'x', 'a', 'c'))
    runner, _ = make_runner(tmp_path, [FeatureScatterHook(interval=99)], val=val)
    runner.train()
    scatter, title, options = drawn[-1]
    layer = runner.model.layers[0]
    with torch.no_grad():
        expected = layer(torch.tensor(val.points)).numpy()
    assert np.allclose(scatter.points, expected, atol=1e-6)
    assert scatter.labels.tolist() == [place % 4 for place in range(48)]
    assert title == '48 embeddings after epoch 4' and options == {'around_zero': True}
    # By their names: b is class 1 in training, x was not in it.
    assert scatter.names == ['b', 'x', 'a', 'c'] and scatter.unseen == {1}
    weight = runner.model.head.weight.detach().numpy()
    assert {k: v.tolist() for k, v in scatter.centers.items()} == {
        0: weight[1:2].tolist(),
        2: weight[0:1].tolist(),
        3: weight[2:3].tolist(),
    }
    assert len(drawn) == 2


def test_without_names_labels_beyond_the_head_are_unseen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = seen_by(monkeypatch)
    val = Points(('', '', '', '', ''))
    train = Points()
    val.get_data_info = lambda place: {'gt_label': place % 5}  # type: ignore[method-assign]
    for dataset in (val, train):
        dataset.metainfo = {}
    train.get_data_info = lambda place: {'gt_label': place % 3}  # type: ignore[method-assign]
    runner, _ = make_runner(
        tmp_path, [FeatureScatterHook(interval=99)], dataset=train, val=val, epochs=1
    )
    runner.train()
    assert drawn[0][0].unseen == {3, 4}
    assert sorted(drawn[0][0].centers) == [0, 1, 2]
    assert drawn[0][0].names == ['0', '1', '2', '3', '4']


def test_same_bounded_choice_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = seen_by(monkeypatch)
    asked = []
    for name, seed in (('a', 1), ('b', 1), ('c', 2)):
        hook = FeatureScatterHook(interval=99, max_samples=5, seed=seed)
        runner, _ = make_runner(tmp_path / name, [hook], val=Points(), epochs=1)
        monkeypatch.setattr(runner.val_loop, 'run', lambda: None)
        runner.train()
        asked.append(runner.val_dataloader.dataset.asked)
        assert len(asked[-1]) == 10 and asked[-1][:5] == asked[-1][5:] == sorted(asked[-1][:5])
    assert asked[0] == asked[1] != asked[2]
    assert all(len(scatter.points) == 5 for scatter, _, _ in drawn)


def test_few_classes_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = seen_by(monkeypatch)
    data = Points()
    # Class 2 has most pictures, then 0.
    data.get_data_info = lambda place: {  # type: ignore[method-assign]
        'gt_label': 1 if place < 4 else 0 if place < 12 else 2
    }
    hook = FeatureScatterHook(interval=99, dataset='train', max_classes=2)
    make_runner(tmp_path, [hook], dataset=data, epochs=1)[0].train()
    assert np.bincount(drawn[0][0].labels, minlength=3).tolist() == [8, 0, 24]


def test_long_embeddings_keep_the_first_view(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = seen_by(monkeypatch)
    model = Net(dict(type='ArcFace', m=0.1), channels=5)
    first = model.layers[0]
    with torch.no_grad():
        start = first(torch.tensor(Points().points)).numpy().astype(np.float64)
    hook = FeatureScatterHook(interval=99, dataset='train')
    runner, _ = make_runner(tmp_path, [hook], model)
    runner.train()
    with torch.no_grad():
        end = first(torch.tensor(Points().points)).numpy().astype(np.float64)
    values, vectors = np.linalg.eigh(np.cov(start.T))
    axes = vectors[:, ::-1][:, :2].T
    axes *= np.sign(axes[np.arange(2), np.abs(axes).argmax(1)])[:, None]
    for (scatter, title, options), points in zip(drawn, (start, end), strict=True):
        assert np.allclose(scatter.points, (points - start.mean(0)) @ axes.T, atol=1e-4)
        assert scatter.centers == {} and options == {'around_zero': False}
        share = ((points - start.mean(0)) @ axes.T).var(0).sum() / points.var(0).sum()
        assert title.endswith(f'({share:.0%} of their variance)')
    assert values[-2:].sum() / values.sum() == pytest.approx(
        float(np.load(tmp_path / 'scatter' / 'projection.npz')['share']), abs=1e-5
    )


def test_resumed_training_keeps_view_and_drawings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = seen_by(monkeypatch)
    hook = dict(type='mmdet_ext.FeatureScatterHook', interval=2, dataset='train')

    def part(name: str, **options: Any) -> Runner:
        torch.manual_seed(9)
        return make_runner(tmp_path / name, [hook], Net(dict(type='ArcFace'), 5), **options)[0]

    part('whole').train()
    whole = [scatter.points for scatter, _, _ in drawn]
    drawn.clear()
    first = part('parts')
    first.register_hook(StopAfter(2))
    first.train()
    (tmp_path / 'parts' / 'scatter' / 'epoch_000009.png').write_bytes(b'of another training')
    part('parts', resume=True, load_from=str(tmp_path / 'parts' / 'epoch_2.pth')).train()
    assert [title.partition(' (')[0] for _, title, _ in drawn] == [
        f'36 embeddings after epoch {epoch}' for epoch in (0, 2, 4)
    ]
    # The order of pictures of a resumed run is another: only the view is the same.
    assert np.allclose(drawn[1][0].points, whole[1], atol=1e-6)
    with (
        np.load(tmp_path / 'parts' / 'scatter' / 'projection.npz') as a,
        np.load(tmp_path / 'whole' / 'scatter' / 'projection.npz') as b,
    ):
        assert np.array_equal(a['axes'], b['axes']) and np.array_equal(a['mean'], b['mean'])
    with Image.open(tmp_path / 'parts' / 'scatter' / 'scatter.gif') as animation:
        assert animation.n_frames == 3


def test_by_steps(tmp_path: Path) -> None:
    hook = FeatureScatterHook(
        interval=5, dataset='train', by_epoch=False, out_dir=str(tmp_path / 'elsewhere')
    )
    make_runner(tmp_path, [hook], by_epoch=False)[0].train()
    assert drawings(tmp_path / 'elsewhere') == [f'step_{k:06d}.png' for k in (0, 5, 10, 12)]
    runner, _ = make_runner(tmp_path / 'b', [FeatureScatterHook(dataset='train')], by_epoch=False)
    with pytest.raises(ValueError, match='set by_epoch=False'):
        runner.train()


def test_embeddings_that_are_not_finite_are_left_out_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = seen_by(monkeypatch)
    data = Points()
    data.points[:4] = np.nan
    hook = FeatureScatterHook(interval=99, dataset='train')
    runner, _ = make_runner(tmp_path, [hook], dataset=data)
    hook.before_train(runner)
    assert drawn[0][1] == '32 embeddings after epoch 0; 4 are not finite'
    assert np.isfinite(drawn[0][0].points).all()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(interval=0), 'interval must be a whole number from 1 on, got 0'),
        (dict(max_samples=0), 'max_samples must be a whole number from 1 on, got 0'),
        (dict(max_classes=True), 'max_classes must be a whole number from 1 on, got True'),
        (dict(dataset='valid'), "dataset must be one of .* got 'valid'"),
        (dict(projection='tsne'), "projection must be one of .* got 'tsne'"),
    ],
)
def test_scatter_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FeatureScatterHook(**options)


def test_absent_loader_and_absent_labels(tmp_path: Path) -> None:
    runner, _ = make_runner(tmp_path, [FeatureScatterHook()])
    with pytest.raises(ValueError, match='no val_dataloader.*set dataset to .train.'):
        runner.train()
    data = Points()
    data.get_data_info = lambda place: {}  # type: ignore[method-assign,assignment]
    runner, _ = make_runner(tmp_path, [FeatureScatterHook(dataset='train')], dataset=data)
    with pytest.raises(ValueError, match='of the 36 images of Points none has a gt_label'):
        runner.train()


# Two processes

# MMEngine's own start of a process group sets a CUDA device first, which a CPU has not; it leaves
# alone a group that is there.
WORKER = """
import runpy, sys
import torch
torch.distributed.init_process_group('gloo')
runpy.run_path(sys.argv.pop(1), run_name='__main__')
torch.distributed.barrier()
torch.distributed.destroy_process_group()
"""


@pytest.mark.subprocess
@pytest.mark.slow
def test_two_processes_train_and_one_draws(tmp_path: Path) -> None:
    spec = importlib.util.find_spec('mmpretrain')
    assert spec is not None and spec.origin is not None
    script = Path(spec.origin).parent / '.mim' / 'tools' / 'train.py'
    cfg = Config.fromfile(CONFIGS / 'ablations' / 'margins' / 'digits' / 'arcface_digits.py')
    cfg.train_cfg.max_epochs = 3
    cfg.custom_hooks[0].interval = 1
    # Half way after the first epoch, and there after the second.
    cfg.custom_hooks[1].end = 2
    # The runner's default names a CUDA device.
    cfg.model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None)
    cfg.env_cfg.dist_cfg.backend = 'gloo'
    cfg.default_hooks.logger.interval = 7
    cfg.dump(tmp_path / 'config.py')
    (tmp_path / 'worker.py').write_text(WORKER)
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    done = subprocess.run(
        [
            sys.executable,
            '-m',
            'torch.distributed.run',
            '--nproc_per_node=2',
            f'--master_port={port}',
            str(tmp_path / 'worker.py'),
            str(script),
            str(tmp_path / 'config.py'),
            '--work-dir',
            str(tmp_path / 'run'),
            '--launcher',
            'pytorch',
        ],
        env={
            **os.environ,
            'PYTHONPATH': str(CONFIGS.parent),
            'OMP_NUM_THREADS': '1',
            'CUDA_VISIBLE_DEVICES': '',
        },
        cwd=tmp_path,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert drawings(tmp_path / 'run' / 'scatter') == [f'epoch_{k:06d}.png' for k in range(4)]
    (log,) = (tmp_path / 'run').glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line['margin_m'] for line in lines if 'margin_m' in line] == [0.0, 0.25, 0.5]
    assert done.stdout.count('4 drawings, ') == 1
