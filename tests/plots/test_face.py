"""Plots of face evaluation show the given values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure

from mmdet_ext.plots import face
from mmdet_ext.plots.face import (
    TILE,
    FacePair,
    draw_cmc,
    draw_hardest_pairs,
    draw_roc,
    draw_score_histogram,
)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Collect the figures as they are saved."""
    figures: list[Any] = []
    save = face.save_figure

    def keep(figure: Figure, path: Path) -> None:
        figures.append(figure)
        save(figure, path)

    monkeypatch.setattr(face, 'save_figure', keep)
    return figures


def legend(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_roc_has_a_logarithmic_far_that_begins_a_decade_below_the_lowest(
    drawn: list[Any], tmp_path: Path
) -> None:
    curves = {'one': ([0, 0, 0.004, 1.0], [0, 0.5, 0.8, 1.0]), 'two': ([0, 0.02, 1], [0, 0.9, 1])}
    draw_roc(curves, tmp_path / 'new' / 'roc.png')
    (axes,) = drawn[0].axes
    assert axes.get_xscale() == 'log' and axes.get_xlim() == (1e-3, 1)
    x, y = axes.lines[0].get_data()
    # Points that accept no impostor are drawn at the left edge.
    assert x.tolist() == [1e-3, 1e-3, 0.004, 1] and list(y) == [0, 0.5, 0.8, 1]
    assert axes.lines[0].get_drawstyle() == 'steps-post'
    assert legend(drawn[0]) == ['one', 'two', 'FAR = FRR']
    image = cv2.imread(str(tmp_path / 'new' / 'roc.png'))
    assert image is not None and image.std() > 1


def test_many_curves_differ_in_colour_or_style(drawn: list[Any], tmp_path: Path) -> None:
    draw_roc({f'loss {k}': ([0.01, 1], [k / 20, 1]) for k in range(16)}, tmp_path / 'roc.png')
    looks = {(line.get_color(), line.get_linestyle()) for line in drawn[0].axes[0].lines[:16]}
    assert len(looks) == 16


def test_cmc_begins_at_rank_one(drawn: list[Any], tmp_path: Path) -> None:
    draw_cmc({'a': [0.52, 0.7, 0.9], 'b': [0.8, 0.95]}, tmp_path / 'cmc.png')
    (axes,) = drawn[0].axes
    assert [list(line.get_xdata()) for line in axes.lines] == [[1, 2, 3], [1, 2]]
    assert list(axes.lines[1].get_ydata()) == [0.8, 0.95]
    assert axes.get_ylim()[0] == pytest.approx(0.4)
    assert legend(drawn[0]) == ['a', 'b']


def test_histogram_shows_shares_and_only_the_filled_part(drawn: list[Any], tmp_path: Path) -> None:
    edges = np.linspace(-1, 1, 11).tolist()
    genuine, impostors = [0] * 7 + [1, 3, 0], [0] * 4 + [300, 100] + [0] * 4
    draw_score_histogram(
        edges, genuine, impostors, tmp_path / 'h.png', {'equal errors': 0.4, 'absent': float('inf')}
    )
    (axes,) = drawn[0].axes
    values = [patch.get_data().values.tolist() for patch in axes.patches[1::2]]
    assert values[0] == [0] * 4 + [0.75, 0.25] + [0] * 4
    assert values[1] == [0] * 7 + [0.25, 0.75, 0]
    assert axes.get_xlim() == pytest.approx((edges[3], edges[10]))
    assert legend(drawn[0]) == ['400 impostor pairs', '4 genuine pairs', 'equal errors: 0.400']


def image(path: Path, shape: tuple[int, ...], colour: object) -> str:
    cv2.imwrite(str(path), np.full(shape, colour, np.uint8))
    return str(path)


def test_sheet_shows_grey_and_coloured_images_and_crosses_out_the_unreadable(
    drawn: list[Any], tmp_path: Path
) -> None:
    grey = image(tmp_path / 'grey.png', (40, 20), 77)
    red = image(tmp_path / 'red.png', (300, 300, 3), (0, 0, 255))
    (tmp_path / 'broken.jpg').write_bytes(b'no image')
    impostors = [FacePair((grey, red), 0.71, ('a/1', 'a very long name of one image.png'))]
    genuine = [
        FacePair((red, str(tmp_path / 'broken.jpg')), -0.1),
        FacePair((None, grey), 0.05),
    ]
    assert draw_hardest_pairs(impostors, genuine, tmp_path / 'sheet.png', columns=4) == 2
    (figure,) = drawn
    assert [part.get_suptitle() for part in figure.subfigs] == [
        'Two persons, most similar',
        'One person, least similar',
    ]
    first = figure.subfigs[0].axes[0]
    tile = first.images[0].get_array()
    assert first.get_title() == '0.710'
    assert [text.get_text() for text in first.texts] == ['a/1', '...one image.png']
    # The grey image is half as wide as high, with white beside it. Red is red, not blue.
    assert tile[5, TILE // 2].tolist() == [77] * 3 and tile[5, 5].tolist() == [255] * 3
    assert tile[5, -5].tolist() == [255, 0, 0]
    second, third, *rest = figure.subfigs[1].axes
    assert (second.get_title(), third.get_title()) == ('-0.100', '0.050')
    assert len(second.lines) == 2 and second.lines[0].get_xdata()[0] > TILE
    assert len(third.lines) == 2 and third.lines[0].get_xdata()[0] == 0
    assert not rest  # no more columns than pairs


def test_sheet_of_one_kind_has_one_part(drawn: list[Any], tmp_path: Path) -> None:
    path = image(tmp_path / 'p.png', (9, 9, 3), 9)
    pairs = [FacePair((path, path), k / 10) for k in range(7)]
    assert draw_hardest_pairs([], pairs, tmp_path / 'sheet.png', columns=3) == 0
    (part,) = drawn[0].subfigs
    assert part.get_suptitle() == 'One person, least similar' and len(part.axes) == 9
    titles = [axes.get_title() for axes in part.axes]
    assert titles == [f'{k / 10:.3f}' for k in range(7)] + [''] * 2


def test_nothing_to_draw_and_lengths_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / 'x.png'
    with pytest.raises(ValueError, match='no curve'):
        draw_roc({}, path)
    with pytest.raises(ValueError, match='no curve'):
        draw_cmc({}, path)
    with pytest.raises(ValueError, match="'a' has no values"):
        draw_cmc({'a': []}, path)
    with pytest.raises(ValueError, match="'a': 2 values of FAR, 1 of TAR"):
        draw_roc({'a': ([0, 1], [1])}, path)
    with pytest.raises(ValueError, match='3 edges make 2 bins, got 2 of genuine and 1'):
        draw_score_histogram([0, 1, 2], [1, 1], [1], path)
    with pytest.raises(ValueError, match='no pair to draw'):
        draw_hardest_pairs([], [], path)
    with pytest.raises(ValueError, match='columns is 0'):
        draw_hardest_pairs([], [FacePair((None, None), 0.0)], path, columns=0)
    assert not path.exists()
