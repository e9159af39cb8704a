"""Boundaries and score curves of margins, against the formulas of the papers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mmdet_ext.plots import margins
from mmdet_ext.plots.margins import ScoreCurve, ScorePanel, gap_between
from mmdet_ext.registry import MARGINS
from mmdet_ext.studies import margin_curves

RADIANS = np.radians(margin_curves.DEGREES)


@pytest.fixture(scope='module')
def panels() -> list[ScorePanel]:
    return margin_curves.score_panels()


def find(panels: list[ScorePanel], label: str) -> ScoreCurve:
    (curve,) = [c for panel in panels for c in panel.curves if c.label == label]
    return curve


def test_every_margin_is_drawn(panels: list[ScorePanel]) -> None:
    text = ' '.join(curve.label for panel in panels for curve in panel.curves)
    assert {name for name in MARGINS.module_dict if name not in text} == set()


def test_margin_without_a_group_gets_a_panel(monkeypatch: pytest.MonkeyPatch) -> None:
    arcface = MARGINS.get('ArcFace')
    monkeypatch.setitem(MARGINS.module_dict, 'Unknown', arcface)
    panels = margin_curves.score_panels()
    assert [panel.title for panel in panels[4:]] == ['Other margins']
    curve = find(panels[4:], 'Unknown')
    assert np.array_equal(curve.value, find(panels[:1], 'ArcFace 0.5 (CurricularFace)').value)


def test_panels_hold_few_curves_with_names_of_their_own(panels: list[ScorePanel]) -> None:
    assert all(4 <= len(panel.curves) for panel in panels[:4])
    for panel in panels:
        assert len(panel.curves) <= 7
        labels = [curve.label for curve in panel.curves]
        assert len(set(labels)) == len(labels)
        for curve in panel.curves:
            assert np.isfinite(curve.value).all() and np.isfinite(curve.slope).all(), curve.label


def test_scores_of_the_own_class_match_the_formulas(panels: list[ScorePanel]) -> None:
    cosine = np.cos(RADIANS)
    assert find(panels, 'CosFace 0.35 (UniFace)').value == pytest.approx(cosine - 0.35, abs=1e-5)
    sphere = find(panels, 'SphereFace, m = 4').value
    fold = np.floor(4 * RADIANS / np.pi)
    assert sphere == pytest.approx((-1) ** fold * np.cos(4 * RADIANS) - 2 * fold, abs=1e-4)
    mixed = find(panels, 'SphereFace, m = 4, annealing at 5').value
    assert mixed == pytest.approx((5 * cosine + sphere) / 6, abs=1e-4)
    arc = find(panels, 'ArcFace 0.5 (CurricularFace)')
    # Angles with t + m below pi.
    inside = RADIANS < np.pi - 0.5
    assert arc.value[inside] == pytest.approx(np.cos(RADIANS + 0.5)[inside], abs=1e-4)
    ratio = np.sin(RADIANS + 0.5) / np.sin(RADIANS)
    assert arc.slope[inside] == pytest.approx(ratio[inside], rel=1e-3, abs=1e-4)
    through = find(panels, 'ArcFace 0.5, straight-through gradient')
    assert np.array_equal(through.value, arc.value) and (through.slope == 1).all()


def test_length_of_the_feature_sets_the_margin(panels: list[ScorePanel]) -> None:
    short = find(panels, 'AdaFace 0.4, quality -1').value
    average = find(panels, 'AdaFace 0.4, quality 0').value
    long = find(panels, 'AdaFace 0.4, quality +1').value
    middle = (RADIANS > 0.5) & (RADIANS < 2.5)
    assert short[middle] == pytest.approx(np.cos(RADIANS + 0.4)[middle], abs=1e-3)
    assert average == pytest.approx(np.cos(RADIANS) - 0.4, abs=1e-3)
    assert long[middle] == pytest.approx((np.cos(RADIANS - 0.4) - 0.8)[middle], abs=1e-3)
    for length, margin in ((10, 0.45), (60, 0.625), (110, 0.8)):
        curve = find(panels, f'MagFace, length {length}').value
        inside = RADIANS < np.pi - margin
        assert curve[inside] == pytest.approx(np.cos(RADIANS + margin)[inside], abs=1e-4)


def test_scores_of_other_classes_match_the_formulas(panels: list[ScorePanel]) -> None:
    cosine = np.cos(RADIANS)
    turned = math.cos(math.radians(margin_curves.OWN_ANGLE) + 0.5)
    for pace in (0, 0.3, 0.7):
        curve = find(panels, f'CurricularFace 0.5, pace {pace:g}')
        expected = np.where(cosine > turned, cosine * (cosine + pace), cosine)
        assert curve.value == pytest.approx(expected, abs=1e-5)
        slope = np.where(cosine > turned, 2 * cosine + pace, 1)
        assert curve.slope == pytest.approx(slope, abs=1e-5)
    wide = find(panels, 'SphereFaceR v2, m = 1.5').value
    assert wide == pytest.approx(np.cos(RADIANS / 1.5), abs=1e-4)


def test_gaps_between_centres_60_degrees_apart_match_the_formulas() -> None:
    gaps = {boundary.title: gap_between(boundary.score) for boundary in margin_curves.boundaries()}
    # cos t - 0.35 = cos(60 - t): 2 sin(30) sin(30 - t) = 0.35.
    cosface = 60 - 2 * (30 - math.degrees(math.asin(0.35)))
    assert gaps == pytest.approx(
        {
            'Softmax, NormFace': 0,
            'SphereFace, m = 4': 60 - 2 * 60 / 5,
            'SphereFaceR v1, m = 1.5': 60 - 2 * 60 / 2.5,
            'CosFace, m = 0.35': cosface,
            'ArcFace, m = 0.5': math.degrees(0.5),
            'CombinedMargin (1, 0.3, 0.2)': gaps['CombinedMargin (1, 0.3, 0.2)'],
        },
        abs=0.01,
    )
    # The gap lies between those of its angular margin and of CosFace.
    assert math.degrees(0.3) < gaps['CombinedMargin (1, 0.3, 0.2)'] < cosface


def test_gap_is_at_most_the_angle_between_the_centres() -> None:
    assert gap_between(lambda t: np.cos(np.radians(t)) - 0.6) == margins.APART
    assert gap_between(lambda t: np.cos(np.radians(t)) + 0.1) == 0
