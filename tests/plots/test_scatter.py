"""Scatters of embeddings: the view, the colours, what is drawn where, the animation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image
from sklearn.decomposition import PCA

from mmdet_ext.plots import scatter as figures
from mmdet_ext.plots.scatter import Run, Scatter
from mmdet_ext.plots.style import COLOURS, new_figure


def cloud(rows: int = 60, columns: int = 5) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(size=(rows, columns)) * np.arange(columns, 0, -1) + 3


def test_projection_is_that_of_scikit_learn_up_to_its_signs() -> None:
    points = cloud()
    view, reference = figures.fit_projection(points), PCA(2).fit(points)
    found, expected = view(points), reference.transform(points)
    signs = np.sign((found * expected).sum(0))
    assert np.allclose(found, expected * signs)
    assert view.share == pytest.approx(reference.explained_variance_ratio_.sum())


def test_projection_is_the_same_for_mirrored_coordinates_of_the_view() -> None:
    points = cloud()
    view = figures.fit_projection(points)
    assert (view.axes[np.arange(2), np.abs(view.axes).argmax(1)] > 0).all()
    mirrored = figures.fit_projection(2 * points.mean(0) - points)
    assert np.allclose(view.axes, mirrored.axes)


def test_projection_of_what_has_less_than_two_directions() -> None:
    line = np.array([[1.0, 1], [2, 2], [4, 4]])
    view = figures.fit_projection(line)
    assert np.allclose(np.abs(view(line)[:, 0]), np.sqrt(2) * np.abs(line[:, 0] - 7 / 3))
    assert np.allclose(view(line)[:, 1], 0) and view.share == pytest.approx(1)
    numbers = figures.fit_projection(np.array([[1.0], [3]]))
    assert numbers(np.array([[5.0]])).tolist() == [[3, 0]]
    assert figures.fit_projection(np.ones((1, 4)))(np.ones((2, 4))).tolist() == [[0, 0]] * 2


@pytest.mark.parametrize(
    'points', [np.zeros((0, 3)), np.zeros(3), np.array([[1.0, np.nan]]), np.array([[np.inf, 0]])]
)
def test_projection_of_no_points(points: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r'points must be \(N, D\), at least one and finite'):
        figures.fit_projection(points)


def scatter(**options: object) -> Scatter:
    points = np.array([[10.0, 0], [9, 1], [0, 8], [-3, -3]])
    return Scatter(
        **{
            'points': points,
            'labels': np.array([0, 0, 1, 2]),
            'names': ['a', 'b', 'new'],
            'unseen': {2},
            **options,
        }
    )


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(points=np.zeros((4, 3))), r'points must be \(N, 2\), got \(4, 3\)'),
        (dict(labels=np.zeros(3, int)), r'labels must be one a point, \(4,\), got \(3,\)'),
        (dict(labels=np.array([0, 0, 1, 3])), 'labels must be from 0 to 2.*got 0 to 3'),
        (dict(labels=np.array([0, 0, 1, -1])), 'got -1 to 1'),
    ],
)
def test_scatter_that_is_none(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scatter(**options)


def test_styles_tell_classes_apart_and_do_not_hang_on_the_points() -> None:
    names = [str(k) for k in range(31)]
    many = Scatter(np.zeros((1, 2)), np.array([30]), names, unseen={2, 30, 5})
    look = figures.styles(many)
    assert len(set(look.values())) == 31
    assert look[0] == (COLOURS[0], 'o') and look[3] == (COLOURS[2], 'o')
    assert [look[place][1] for place in (2, 5, 30)] == ['x', '+', '1']
    assert figures.styles(scatter()) == figures.styles(scatter(labels=np.array([1, 1, 1, 1])))


def near(picture: np.ndarray, colour: str) -> int:
    wanted = np.array(to_rgb(colour)) * 255
    return int((np.abs(picture.astype(float) - wanted).max(2) < 12).sum())


def test_pictures_are_of_one_size_and_show_each_class() -> None:
    first = figures.draw_scatter(scatter(), 'one')
    other = figures.draw_scatter(scatter(points=1e4 * scatter().points), 'a much longer title')
    assert first.shape == other.shape and first.dtype == np.uint8
    for colour in (COLOURS[0], COLOURS[1], 'black'):
        assert near(first, colour) > 20
    # Rays are of the class's colour.
    rays = figures.draw_scatter(scatter(centres={1: np.array([[-5.0, 0], [3, 3]])}), 'one')
    assert near(rays, COLOURS[1]) > near(first, COLOURS[1]) + 100
    assert near(rays, COLOURS[0]) == pytest.approx(near(first, COLOURS[0]), abs=30)


def test_a_legend_of_many_classes_ends() -> None:
    places = np.arange(40)
    many = Scatter(np.stack([places, places], 1) * 1.0, places, [f'{k}' * 30 for k in places])
    few = Scatter(many.points[:20], places[:20], many.names)
    assert figures.draw_scatter(many, '').shape == figures.draw_scatter(few, '').shape
    figure = new_figure(3, 3)
    axes = figure.add_subplot()
    figures.plot_scatter(axes, many, around_zero=True)
    assert len(axes.collections) == 40


def test_axes_are_equal_and_hold_all_points() -> None:
    for around_zero in (True, False):
        axes = new_figure(3, 3).add_subplot()
        figures.plot_scatter(axes, scatter(), around_zero=around_zero)
        (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
        assert right - left == pytest.approx(high - low) and axes.get_aspect() == 1
        assert left < -3 and right > 10 and low < -3 and high > 8
        assert bool(left == -right and low == -high) is around_zero
    axes = new_figure(3, 3).add_subplot()
    figures.plot_scatter(
        axes, Scatter(np.zeros((0, 2)), np.zeros(0, int), ['a']), around_zero=False
    )
    assert axes.get_xlim() == (-1, 1)


def test_comparison_has_a_column_a_run_and_shares_its_scale(tmp_path: Path) -> None:
    runs = [Run('one', ['note'], scatter()), Run('two', ['note', 'more'], scatter())]
    figures.draw_comparison(runs, 'title', 'footer', tmp_path / 'both.png')
    figures.draw_comparison(runs[:1], 'title', 'footer', tmp_path / 'one.png')
    with Image.open(tmp_path / 'both.png') as both, Image.open(tmp_path / 'one.png') as one:
        assert both.width == pytest.approx(2 * one.width, rel=0.1) and both.height == one.height
    figures.draw_comparison(runs, 'title', 'footer', tmp_path / 'again.png')
    assert (tmp_path / 'again.png').read_bytes() == (tmp_path / 'both.png').read_bytes()


def test_direction_shares_sum_to_one() -> None:
    points = np.random.default_rng(1).normal(size=(500, 2))
    shares = figures.direction_shares(points)
    assert shares.shape == (360 // figures.BIN,) and shares.sum() == pytest.approx(1)
    # Both ends of the circle are counted, and a point without a direction at 0.
    ends = figures.direction_shares(np.array([[-1.0, 0.0], [-1, -1e-9], [0, 0]]))
    assert [ends[-1], ends[0], ends[180 // figures.BIN]] == pytest.approx([1 / 3] * 3)
    assert figures.direction_shares(np.zeros((0, 2))).sum() == 0


def test_angles_by_hand() -> None:
    radians = np.radians([10, 20, 60, 200.0])
    points = 7 * np.stack([np.cos(radians), np.sin(radians)], 1)
    angles = figures.angles_to_class(points, np.array([3, 3, 1, 1]))
    assert angles == pytest.approx([5, 5, 70, 70], abs=1e-5)


def frames(folder: Path, *shades: int, size: tuple[int, int] = (30, 20)) -> list[Path]:
    paths = []
    for number, shade in enumerate(shades):
        paths.append(folder / f'{number}_{size[0]}.png')
        figures.write_picture(np.full((size[1], size[0], 3), shade, np.uint8), paths[-1])
    return paths


def test_animation_holds_all_frames_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / 'made' / 'a.gif'
    figures.write_animation(frames(tmp_path, 10, 200, 90), path)
    with Image.open(path) as animation:
        assert animation.n_frames == 3 and animation.info['loop'] == 0
        shades, durations = [], []
        for number in range(3):
            animation.seek(number)
            shades.append(animation.convert('L').getpixel((5, 5)))
            durations.append(animation.info['duration'])
    assert shades == [10, 200, 90]
    assert durations == [figures.FRAME_MS, figures.FRAME_MS, figures.LAST_FRAME_MS]


def test_animation_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / 'a.gif'
    path.write_bytes(b'before')
    with pytest.raises(ValueError, match='frames is empty'):
        figures.write_animation([], path)
    with pytest.raises(ValueError, match=r'of one size, got \[\(30, 20\), \(40, 20\)\]'):
        mixed = frames(tmp_path, 1) + frames(tmp_path, 2, size=(40, 20))
        figures.write_animation(mixed, path)
    with pytest.raises(OSError, match='absent'):
        figures.write_animation([tmp_path / 'absent.png'], path)

    def half(self: object, file: Path, **options: object) -> None:
        Path(file).write_bytes(b'GIF89a')
        raise OSError('disk full')

    good = frames(tmp_path, 1, 2)
    monkeypatch.setattr(Image.Image, 'save', half)
    with pytest.raises(OSError, match='disk full'):
        figures.write_animation(good, path)
    assert path.read_bytes() == b'before' and not list(tmp_path.glob('*.part'))
