"""Tests of the simulation of box regression: cases, gradients, published results, workers."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import MODELS

from mmdet_ext.analysis.box_simulation import SimulatedLoss, ring_errors
from mmdet_ext.plots.box_simulation import draw_simulation
from mmdet_ext.studies import box_simulation as sim
from mmdet_ext.studies.published_gradients import corners, overlap
from tests._helpers.tools import load_tool

simulate_boxes = load_tool('analysis/simulate_boxes.py')

FOUR = ('IoU', 'GIoU', 'DIoU', 'CIoU')


def test_cases_are_those_of_the_paper() -> None:
    boxes, targets = sim.cases_of(torch.tensor([[9.0, 12.0], [10.0, 10.0]]))
    assert boxes.shape == targets.shape == (4, 2 * 343)
    assert 5000 * sim.CASES_PER_POINT == 1_715_000
    assert boxes[:2, :343].unique(dim=1).tolist() == [[9.0], [12.0]]
    assert targets[:2].unique().tolist() == [10.0]
    torch.testing.assert_close(targets[2] * targets[3], torch.ones(686))
    shapes = {tuple(shape) for shape in targets[2:].t().round(decimals=4).tolist()}
    assert (0.5, 2.0) in shapes and (2.0, 0.5) in shapes and len(shapes) == 7
    areas = (boxes[2] * boxes[3]).round(decimals=4).unique()
    torch.testing.assert_close(areas, torch.tensor(sim.AREAS))
    assert len({tuple(case) for case in torch.cat([boxes, targets])[:, :343].t().tolist()}) == 343


def test_points_fill_the_disc_evenly() -> None:
    points = sim.anchor_points(20_000, seed=3) - sim.CENTER
    distance = points.norm(dim=1)
    assert distance.max() <= 3.0001
    # A quarter of the area lies within half the radius.
    assert float((distance < 1.5).float().mean()) == pytest.approx(0.25, abs=0.01)
    assert points.mean(0).abs().max() < 0.05
    assert torch.equal(sim.anchor_points(9, 3), sim.anchor_points(9, 3))
    assert not torch.equal(sim.anchor_points(9, 3), sim.anchor_points(9, 4))


def test_rate_falls_at_80_and_90_percent() -> None:
    rates = [sim.rate(step, 200) for step in range(200)]
    assert rates == [0.1] * 160 + [0.01] * 20 + [0.001] * 20


def test_overlap_by_hand() -> None:
    boxes = torch.tensor([[0, 0, 2, 2], [1, 0, 2, 2], [0, 0, 1, 4], [2, 0, 2, 2], [9, 0, 2, 2.0]])
    targets = torch.tensor([[0, 0, 2, 2.0]]).repeat(5, 1)
    expected = torch.tensor([1, 1 / 3, 2 / 6, 0, 0])
    torch.testing.assert_close(overlap(boxes.t(), targets.t()), expected)


def test_exact_gradient_is_that_of_finite_differences() -> None:
    gradient = sim.build_gradient('mmdet_ext.GIoULoss')
    loss = MODELS.build({'type': 'mmdet_ext.GIoULoss', 'reduction': 'none'})
    boxes, targets = (b.double() for b in sim.cases_of(sim.anchor_points(2, 0)))
    found = gradient(boxes, targets)
    for index in range(4):
        step = torch.zeros(4, 1, dtype=torch.float64)
        step[index] = 1e-6
        high, low = (
            loss(corners(boxes + sign * step).t(), corners(targets).t()) for sign in (1, -1)
        )
        torch.testing.assert_close(found[index], (high - low) / 2e-6, atol=1e-5, rtol=1e-5)


def test_first_step_by_hand() -> None:
    # 1 - IoU of a unit square and a copy moved by 1/2: moving on by d gives
    # IoU = (0.5 - d) / (1.5 + d), whose derivative is -2 / 1.5**2 = -8/9.
    gradient = sim.build_gradient('mmdet_ext.IoULoss:mode=linear')
    boxes = torch.tensor([[10.5], [10.0], [1.0], [1.0]])
    targets = torch.tensor([[10.0], [10.0], [1.0], [1.0]])
    torch.testing.assert_close(gradient(boxes, targets)[0], torch.tensor([8 / 9]))
    # The published program has the same value here.
    published = sim.build_gradient('published.IoU')
    torch.testing.assert_close(published(boxes, targets)[0], torch.tensor([8 / 9]))


def test_published_gradients_are_right_for_near_boxes_and_wrong_for_separate_ones() -> None:
    near = sim.cases_of(torch.tensor([[10.1, 10.2]]))
    far = sim.cases_of(torch.tensor([[12.9, 10.2]]))
    half = torch.tensor([1, 1, 0.5, 0.5])[:, None]
    for full, name in (('IoULoss:mode=linear', 'IoU'), ('GIoULoss', 'GIoU')):
        exact = sim.build_gradient(f'mmdet_ext.{full}')(*near)
        published = sim.build_gradient(f'published.{name}')(*near)
        torch.testing.assert_close(published * half, exact, atol=1e-4, rtol=1e-4)
    boxes, targets = far
    assert sim.build_gradient('published.IoU')(boxes, targets).abs().max() == 0
    for name, least, most in (('GIoU', 0, 0.6), ('DIoU', 2, 9)):
        exact, published = (
            sim.build_gradient(full)(boxes, targets)[0]
            for full in (f'mmdet_ext.{name}Loss', f'published.{name}')
        )
        assert exact.min() > 0
        share = published / exact
        assert least < share.min() and share.max() < most, name


def test_published_gradient_of_distance_by_hand() -> None:
    # Unit squares, the box 2 left of the target: c = (3, 1), c^2 = 10, d^2 = 4, (t - x) = 2. The
    # box reaches beyond the target on the left alone. x: (2 * 2 * 10 + 2 * (3 + 1) * 4) / 100;
    # w: (3 + 1) * 4 / 100.
    boxes = torch.tensor([[8.0], [10.0], [1.0], [1.0]])
    targets = torch.tensor([[10.0], [10.0], [1.0], [1.0]])
    found = sim.build_gradient('published.DIoU')(boxes, targets)
    torch.testing.assert_close(found[:, 0], -torch.tensor([0.72, 0, 0.16, 0]))
    # Aspect term alone: a box 2 x 1/2 on a target 1 x 1.
    boxes = torch.tensor([[10.0], [10.0], [2.0], [0.5]])
    gap = math.atan(1) - math.atan(4)
    v = 4 / math.pi**2 * gap**2
    pull = 8 / math.pi**2 * v / (1 - 1 / 3 + v) * gap
    more = sim.build_gradient('published.CIoU')(boxes, targets)
    less = sim.build_gradient('published.DIoU')(boxes, targets)
    torch.testing.assert_close((less - more)[:, 0], torch.tensor([0, 0, pull * 0.5, -pull * 2]))


def test_published_gradients_give_the_published_order() -> None:
    points = sim.anchor_points(40, seed=0)
    ends = {}
    for name in FOUR:
        result = sim.run_chunk(sim.build_gradient(f'published.{name}'), points, 200)
        ends[name] = result.errors[-1] / (40 * 343) * 1_715_000
        assert result.errors[0] / (40 * 343) == pytest.approx(3.8, abs=0.3)
    # The figure in the paper has 5.9e6, 1.5e6 and about 0, for 5,000 points.
    assert ends['IoU'] == pytest.approx(5.9e6, rel=0.1)
    assert ends['GIoU'] == pytest.approx(1.5e6, rel=0.25)
    assert ends['DIoU'] < 1e4 and ends['CIoU'] < 1e4


@pytest.mark.slow
def test_exact_gradients_fail_for_iou_alone() -> None:
    points = sim.anchor_points(40, seed=0)
    names = ['IoULoss:mode=linear', *(f'{name}Loss' for name in FOUR[1:])]
    iou, *others = (
        sim.run_chunk(sim.build_gradient(f'mmdet_ext.{name}'), points, 200) for name in names
    )
    assert iou.errors[-1] / (40 * 343) > 3
    assert iou.good / (40 * 343) < 0.3
    for result in others:
        assert result.errors[-1] / (40 * 343) < 0.05
        assert result.good / (40 * 343) > 0.95
        assert result.point_errors.mean() * 40 * 343 == pytest.approx(result.errors[-1])


@pytest.mark.slow
def test_workers_do_not_change_the_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [
        '--points',
        '70',
        '--iterations',
        '2',
        '--losses',
        'mmdet_ext.DIoULoss',
        'published.GIoU',
    ]
    contents = []
    for workers in ('1', '2'):
        out = tmp_path / workers
        assert simulate_boxes.main([*options, '--workers', workers, '--out', str(out)]) == 0
        content = json.loads(out.with_suffix('.json').read_text())
        assert content['cases'] == 70 * 343
        contents.append([{**r, 'core_seconds': 0} for r in content['rows']])
        assert out.with_suffix('.png').stat().st_size > 10_000
        assert capsys.readouterr().out.split('\n\n')[0] in out.with_suffix('.md').read_text()
    assert contents[0] == contents[1]
    assert [len(r['total_errors']) for r in contents[0]] == [3, 3]


def test_options_of_a_loss_are_parsed() -> None:
    assert sim.parse_loss('mmdet.X:a=1,b=x,c=-2e-3') == {
        'type': 'mmdet.X',
        'a': 1,
        'b': 'x',
        'c': -0.002,
    }
    assert sim.parse_loss('mmdet.X') == {'type': 'mmdet.X'}
    with pytest.raises(ValueError, match='give NAME:option=value'):
        sim.parse_loss('mmdet.X:a')
    with pytest.raises(ValueError, match="published has IoU, GIoU, DIoU, CIoU, got 'EIoU'"):
        sim.build_gradient('published.EIoU')


def test_every_default_loss_goes_a_few_steps() -> None:
    points = sim.anchor_points(3, seed=0)
    for name in sim.DEFAULT_LOSSES:
        result = sim.run_chunk(sim.build_gradient(name), points, 5)
        assert np.isfinite(result.errors).all(), name
        assert result.errors[-1] < result.errors[0], name


def test_ring_errors_by_hand(tmp_path: Path) -> None:
    points = np.array([[0.1, 0.0], [0.0, 0.2], [0.0, 3.0], [1.6, 0.0]])
    errors = np.array([1.0, 3.0, 5.0, math.nan])
    result = SimulatedLoss('mmdet.GIoULoss', 4, np.zeros(3), errors, 0.0, 1.0)
    rings = ring_errors(result, points)
    assert rings[0] == 2.0 and rings[-1] == 5.0 and rings[1:-1] == [None] * 10
    draw_simulation([result], points, tmp_path / 'x.png')
    assert (tmp_path / 'x.png').stat().st_size > 5000
