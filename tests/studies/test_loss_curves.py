"""Tests of the figures of losses: values and gradients by hand, and readable panels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmdet_ext.catalog.cases import LOSSES
from mmdet_ext.plots.losses import Curve, Panel, draw_panels
from mmdet_ext.studies import loss_curves, loss_lines
from tests._helpers.tools import load_tool

plot_losses = load_tool('analysis/plot_losses.py')

MIDDLE = loss_curves.STEPS // 2


@pytest.fixture(scope='module')
def figures() -> dict[str, list[Panel]]:
    return {name: panels for name, (panels, _) in loss_curves.loss_figures().items()}


def find(panels: list[Panel], label: str) -> tuple[np.ndarray, Curve]:
    ((x, curve),) = [(p.x, c) for p in panels for c in p.curves if c.label == label]
    return x, curve


def test_every_loss_is_drawn(figures: dict[str, list[Panel]]) -> None:
    for path in loss_curves.PATHS:
        labels = {c.label.partition(':')[0] for p in figures[f'box_{path}'] for c in p.curves}
        boxes = {case.name.removesuffix('Loss') for case in LOSSES if case.family == 'overlap'}
        assert labels == boxes
    tables = (loss_lines.CLASSIFICATION, loss_lines.QUALITY, loss_lines.LONG_TAIL)
    drawn = {line.name for table in tables for lines in table.values() for line in lines}
    there = {case.name for case in LOSSES if case.family == 'classification'}
    # Losses that select samples, or that are of regions, have no curve for one element.
    regions = {'DiceLoss', 'DiceCELoss', 'TverskyLoss'}
    assert there - drawn == {'OHEMLoss', 'OHEMPixelLoss'} | regions


def test_panels_can_be_read(figures: dict[str, list[Panel]]) -> None:
    for panels in figures.values():
        assert 2 <= len(panels) <= 5
        for panel in panels:
            assert 2 <= len(panel.curves) <= loss_curves.MOST_LINES
            labels = [curve.label for curve in panel.curves]
            assert len(set(labels)) == len(labels)
            for curve in panel.curves:
                assert np.isfinite(curve.value).all(), curve.label
                missing = np.flatnonzero(~np.isfinite(curve.gradient)).tolist()
                assert missing in ([], [MIDDLE]), curve.label


def test_shift_path_by_hand(figures: dict[str, list[Panel]]) -> None:
    x, linear = find(figures['box_shift'], 'IoU: mode=linear')
    shift = np.abs(x)
    overlap = np.where(shift < 1, (1 - shift) / (1 + shift), 0)
    np.testing.assert_allclose(linear.value, 1 - overlap, atol=1e-5)
    np.testing.assert_allclose(linear.stock, linear.value, atol=1e-5)
    # Both vertical edges move the overlap; the derivative by the shift is -2 / (1 + shift)^2.
    inside = (shift > 0.1) & (shift < 0.9)
    slope = linear.gradient[inside]
    assert (slope >= 2 / (1 + shift[inside]) ** 2 / np.sqrt(2) - 1e-4).all()
    assert (linear.gradient[shift > 1.01] == 0).all()
    _, giou = find(figures['box_shift'], 'GIoU: defaults')
    # Three sides to the right, the outer box has 4 squares, of which 2 are filled.
    assert giou.value[-1] == pytest.approx(1 + 2 / 4, abs=1e-5)
    assert giou.gradient[-1] > 0


def test_scale_and_aspect_paths_by_hand(figures: dict[str, list[Panel]]) -> None:
    x, linear = find(figures['box_scale'], 'IoU: mode=linear')
    assert x[0] == 0.125 and x[-1] == 8
    np.testing.assert_allclose(linear.value, 1 - np.minimum(x, 1 / x) ** 2, atol=1e-5)
    x, linear = find(figures['box_aspect'], 'IoU: mode=linear')
    shared = np.minimum(x, 1 / x) ** 0.5
    np.testing.assert_allclose(linear.value, 1 - shared / (2 - shared), atol=1e-5)


def test_nan_of_mmdet_is_kept(figures: dict[str, list[Panel]]) -> None:
    x, ciou = find(figures['box_scale'], 'CIoU: defaults')
    assert ciou.stock is not None
    assert np.flatnonzero(np.isnan(ciou.stock)).tolist() == [MIDDLE] and x[MIDDLE] == 1
    assert ciou.value[MIDDLE] == 0


def test_options_change_the_curves(figures: dict[str, list[Panel]]) -> None:
    power, _, inner, _ = figures['box_options']
    half = int(np.argmin(np.abs(power.x - 0.5)))
    # At half a side the boxes share 1/3.
    by_power = [curve.value[half] for curve in power.curves]
    np.testing.assert_allclose(by_power, [1 - (1 / 3) ** p for p in (0.5, 1, 3)], atol=1e-5)
    by_ratio = [curve.value[half] for curve in inner.curves]
    shares = [(r - 0.5) / (r + 0.5) for r in (0.7, 1, 1.3)]
    np.testing.assert_allclose(by_ratio, [1 - s for s in shares], atol=1e-5)


def test_classification_by_hand(figures: dict[str, list[Panel]]) -> None:
    sigmoid = figures['classification'][:1]
    p, entropy = find(sigmoid, 'cross entropy')
    np.testing.assert_allclose(entropy.value, -np.log(p), atol=1e-5)
    np.testing.assert_allclose(entropy.gradient, p - 1, atol=1e-5)
    _, focal = find(sigmoid, 'focal gamma=2')
    np.testing.assert_allclose(focal.value, -0.5 * (1 - p) ** 2 * np.log(p), atol=1e-5)
    np.testing.assert_allclose(focal.stock, focal.value, atol=1e-5)
    p, rare = find(figures['long_tail'][3:], 'tau=1')
    np.testing.assert_allclose(rare.value, -np.log(10 * p / (10 * p + 1000 * (1 - p))), atol=1e-4)
    p, way = find(figures['quality'], '0.25 of the way up')
    np.testing.assert_allclose(way.value, -0.25 * np.log(p) - 0.75 * np.log(1 - p), atol=1e-5)
    np.testing.assert_allclose(way.gradient, p - 0.25, atol=1e-5)


@pytest.mark.slow
def test_figures_are_small_and_reproducible(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plot_losses.main(['--out', str(tmp_path)]) == 0
    written = [Path(line) for line in capsys.readouterr().out.split()]
    assert sorted(tmp_path.iterdir()) == sorted(written) and len(written) == 8
    assert all(5_000 < path.stat().st_size < 200_000 for path in written)
    panels, label = loss_curves.loss_figures()['regression']
    draw_panels(panels, label, tmp_path / 'again.png')
    assert (tmp_path / 'again.png').read_bytes() == (tmp_path / 'regression.png').read_bytes()
