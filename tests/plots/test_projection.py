"""Projection of embeddings onto the plane, against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA

from mmdet_ext.plots.projection import fit_projection


def cloud(rows: int = 60, columns: int = 5) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(size=(rows, columns)) * np.arange(columns, 0, -1) + 3


def test_projection_equals_scikit_learn_up_to_signs() -> None:
    points = cloud()
    view, reference = fit_projection(points), PCA(2).fit(points)
    found, expected = view(points), reference.transform(points)
    signs = np.sign((found * expected).sum(0))
    assert np.allclose(found, expected * signs)
    assert view.share == pytest.approx(reference.explained_variance_ratio_.sum())


def test_projection_does_not_depend_on_mirrored_coordinates() -> None:
    points = cloud()
    view = fit_projection(points)
    assert (view.axes[np.arange(2), np.abs(view.axes).argmax(1)] > 0).all()
    mirrored = fit_projection(2 * points.mean(0) - points)
    assert np.allclose(view.axes, mirrored.axes)


def test_projection_of_points_in_fewer_than_two_directions() -> None:
    line = np.array([[1.0, 1], [2, 2], [4, 4]])
    view = fit_projection(line)
    assert np.allclose(np.abs(view(line)[:, 0]), np.sqrt(2) * np.abs(line[:, 0] - 7 / 3))
    assert np.allclose(view(line)[:, 1], 0) and view.share == pytest.approx(1)
    numbers = fit_projection(np.array([[1.0], [3]]))
    assert numbers(np.array([[5.0]])).tolist() == [[3, 0]]
    assert fit_projection(np.ones((1, 4)))(np.ones((2, 4))).tolist() == [[0, 0]] * 2


@pytest.mark.parametrize(
    'points', [np.zeros((0, 3)), np.zeros(3), np.array([[1.0, np.nan]]), np.array([[np.inf, 0]])]
)
def test_projection_refuses_empty_and_infinite_points(points: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r'points must be \(N, D\), at least one and finite'):
        fit_projection(points)
