"""Plots of embeddings during training."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.runner import Runner
from PIL import Image

from mmdet_ext.face.embeddings import evaluating, untouched_random_state
from mmdet_ext.face.hooks import FeatureScatterHook
from mmdet_ext.registry import HOOKS
from tests._helpers.face.margin_runs import (
    Net,
    Points,
    StopAfter,
    drawings,
    make_runner,
)


def test_plots_are_drawn_before_during_and_after_training(tmp_path: Path) -> None:
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


def test_hook_does_not_change_training(tmp_path: Path) -> None:
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


def test_modes_and_random_state_are_restored_after_an_error() -> None:
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
    """Record what the hook passes to the plot."""
    from mmdet_ext.face.hooks import feature_scatter

    drawn: list[Any] = []

    def draw(scatter: Any, title: str, **options: Any) -> np.ndarray:
        drawn.append((scatter, title, options))
        # Equal images would become one frame of the animation.
        return np.full((8, 8, 3), 40 * len(drawn), np.uint8)

    monkeypatch.setattr(feature_scatter, 'draw_scatter', draw)
    return drawn


def test_points_are_the_embeddings_in_evaluation_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    # Classes are matched by name: b is class 1 in training, and x was not in it.
    assert scatter.names == ['b', 'x', 'a', 'c'] and scatter.unseen == {1}
    weight = runner.model.head.weight.detach().numpy()
    assert {k: v.tolist() for k, v in scatter.centers.items()} == {
        0: weight[1:2].tolist(),
        2: weight[0:1].tolist(),
        3: weight[2:3].tolist(),
    }
    assert len(drawn) == 2


def test_labels_beyond_the_head_are_unseen_without_names(
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


def test_seed_fixes_the_choice_of_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_classes_with_most_images_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = seen_by(monkeypatch)
    data = Points()
    # Class 2 has most images, then class 0.
    data.get_data_info = lambda place: {  # type: ignore[method-assign]
        'gt_label': 1 if place < 4 else 0 if place < 12 else 2
    }
    hook = FeatureScatterHook(interval=99, dataset='train', max_classes=2)
    make_runner(tmp_path, [hook], dataset=data, epochs=1)[0].train()
    assert np.bincount(drawn[0][0].labels, minlength=3).tolist() == [8, 0, 24]


def test_long_embeddings_keep_the_projection_of_the_first_plot(
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


def test_resumed_training_keeps_projection_and_plots(
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
    # A resumed run has another order of batches: only the projection is the same.
    assert np.allclose(drawn[1][0].points, whole[1], atol=1e-6)
    with (
        np.load(tmp_path / 'parts' / 'scatter' / 'projection.npz') as a,
        np.load(tmp_path / 'whole' / 'scatter' / 'projection.npz') as b,
    ):
        assert np.array_equal(a['axes'], b['axes']) and np.array_equal(a['mean'], b['mean'])
    with Image.open(tmp_path / 'parts' / 'scatter' / 'scatter.gif') as animation:
        assert animation.n_frames == 3


@pytest.mark.slow
def test_interval_in_steps(tmp_path: Path) -> None:
    hook = FeatureScatterHook(
        interval=5, dataset='train', by_epoch=False, out_dir=str(tmp_path / 'elsewhere')
    )
    make_runner(tmp_path, [hook], by_epoch=False)[0].train()
    assert drawings(tmp_path / 'elsewhere') == [f'step_{k:06d}.png' for k in (0, 5, 10, 12)]
    runner, _ = make_runner(tmp_path / 'b', [FeatureScatterHook(dataset='train')], by_epoch=False)
    with pytest.raises(ValueError, match='set by_epoch=False'):
        runner.train()


def test_embeddings_that_are_not_finite_are_left_out_and_counted(
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
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FeatureScatterHook(**options)


def test_absent_loader_and_absent_labels_are_errors(tmp_path: Path) -> None:
    runner, _ = make_runner(tmp_path, [FeatureScatterHook()])
    with pytest.raises(ValueError, match='no val_dataloader.*set dataset to .train.'):
        runner.train()
    data = Points()
    data.get_data_info = lambda place: {}  # type: ignore[method-assign,assignment]
    runner, _ = make_runner(tmp_path, [FeatureScatterHook(dataset='train')], dataset=data)
    with pytest.raises(ValueError, match='of the 36 images of Points none has a gt_label'):
        runner.train()
