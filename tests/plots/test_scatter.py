"""Scatters of embeddings: colours, rays, axes and the comparison of runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from mmdet_ext.plots import scatter as figures
from mmdet_ext.plots.scatter import Run, Scatter
from mmdet_ext.plots.style import COLOURS, new_figure


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
        (dict(labels=np.zeros(3, int)), r'labels must be one per point, \(4,\), got \(3,\)'),
        (dict(labels=np.array([0, 0, 1, 3])), 'labels must be from 0 to 2.*got 0 to 3'),
        (dict(labels=np.array([0, 0, 1, -1])), 'got -1 to 1'),
    ],
)
def test_scatter_refuses_shapes_and_labels_that_do_not_fit(
    options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        scatter(**options)


def test_styles_differ_between_classes_and_do_not_depend_on_points() -> None:
    names = [str(k) for k in range(31)]
    many = Scatter(np.zeros((1, 2)), np.array([30]), names, unseen={2, 30, 5})
    look = figures.styles(many)
    assert len(set(look.values())) == 31
    assert look[0] == (COLOURS[0], 'o') and look[3] == (COLOURS[2], 'o')
    assert [look[place][1] for place in (2, 5, 30)] == ['x', '+', '1']
    assert figures.styles(scatter()) == figures.styles(scatter(labels=np.array([1, 1, 1, 1])))


def near(image: np.ndarray, colour: str) -> int:
    wanted = np.array(to_rgb(colour)) * 255
    return int((np.abs(image.astype(float) - wanted).max(2) < 12).sum())


def test_images_have_one_size_and_show_each_class() -> None:
    first = figures.draw_scatter(scatter(), 'one')
    other = figures.draw_scatter(scatter(points=1e4 * scatter().points), 'a much longer title')
    assert first.shape == other.shape and first.dtype == np.uint8
    for colour in (COLOURS[0], COLOURS[1], 'black'):
        assert near(first, colour) > 20
    # Rays have the colour of their class.
    rays = figures.draw_scatter(scatter(centers={1: np.array([[-5.0, 0], [3, 3]])}), 'one')
    assert near(rays, COLOURS[1]) > near(first, COLOURS[1]) + 100
    assert near(rays, COLOURS[0]) == pytest.approx(near(first, COLOURS[0]), abs=30)


def test_legend_of_many_classes_is_cut() -> None:
    places = np.arange(40)
    many = Scatter(np.stack([places, places], 1) * 1.0, places, [f'{k}' * 30 for k in places])
    few = Scatter(many.points[:20], places[:20], many.names)
    assert figures.draw_scatter(many, '').shape == figures.draw_scatter(few, '').shape
    figure = new_figure(3, 3)
    axes = figure.add_subplot()
    figures.plot_scatter(axes, many, around_zero=True)
    assert len(axes.collections) == 40


def test_axes_have_equal_units_and_hold_all_points() -> None:
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


@pytest.mark.slow
def test_comparison_has_one_column_per_run_and_is_reproducible(tmp_path: Path) -> None:
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
    # Both ends of the circle are counted. A zero point counts at 0 degrees.
    ends = figures.direction_shares(np.array([[-1.0, 0.0], [-1, -1e-9], [0, 0]]))
    assert [ends[-1], ends[0], ends[180 // figures.BIN]] == pytest.approx([1 / 3] * 3)
    assert figures.direction_shares(np.zeros((0, 2))).sum() == 0


def test_angles_to_class_match_angles_by_hand() -> None:
    radians = np.radians([10, 20, 60, 200.0])
    points = 7 * np.stack([np.cos(radians), np.sin(radians)], 1)
    angles = figures.angles_to_class(points, np.array([3, 3, 1, 1]))
    assert angles == pytest.approx([5, 5, 70, 70], abs=1e-5)
