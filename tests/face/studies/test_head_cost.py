"""Cost of a classifier: sums by hand, memory as measured, lines through measurements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from mmengine.structures import BaseDataElement

from mmdet_ext.catalog.memory import peak_bytes
from mmdet_ext.face.heads.margin_head import MarginHead
from mmdet_ext.face.studies.head_cost import (
    bytes_per_identity,
    cost_table,
    fit_line,
    head_cost,
)


def test_costs_by_hand() -> None:
    cost = head_cost(1_000_000, gpus=8, samples=128, channels=512)
    assert cost.centers == cost.gradient == cost.state == 125_000 * 2048
    # 2^25 / 1024 = 32,768 classes per chunk, with 1,024 scores and 512 products each.
    assert cost.working == 4 * (32_768 * 1536 + 1024 * 512 + 125_000)
    assert cost.flops == 4 * 2 * 1024 * 512 * 125_000
    # The batch has 1,024 samples: features, lengths and gradients; sizes; labels and four numbers.
    assert cost.exchanged == 4 * 1024 * (512 + 1 + 512) + 8 * 8 + (8 + 4 * 4) * 1024
    assert cost.total == 3 * cost.centers + cost.working


def test_costs_of_drawn_classes_by_hand() -> None:
    cost = head_cost(10_000_000, rate=0.1, samples=128, channels=512, optimizer='adamw')
    assert cost.centers == 10_000_000 * 2048 and cost.state == 2 * cost.centers
    assert cost.gradient == 1_000_000 * 2048
    # At the step: the drawn rows, two copies of state, and their numbers.
    assert cost.working == 3 * cost.gradient + 8 * 1_000_000
    # 128 samples of 512 channels: products are kept. 1,024 are more than 512.
    assert cost.flops == 3 * 2 * 128 * 512 * 1_000_000
    assert head_cost(8 * 10**6, 8, 0.1).flops == 4 * 2 * 1024 * 512 * 100_000
    assert cost.exchanged == 0


@pytest.mark.parametrize('optimizer', ['sgd', 'adamw'])
@pytest.mark.parametrize('rate', [1.0, 0.1])
def test_memory_is_that_of_a_step(rate: float, optimizer: Any) -> None:
    classes, samples, channels = 20_000, 64, 96
    torch.manual_seed(0)
    head = MarginHead(classes, channels, dict(type='ArcFace'), sample_rate=rate)
    chosen: Any = (
        torch.optim.SGD(head.parameters(), lr=0.1, momentum=0.9, fused=True)
        if optimizer == 'sgd'
        else torch.optim.AdamW(head.parameters(), fused=True)
    )
    step = step_of(head, chosen, samples)
    step()
    cost = head_cost(classes, 1, rate, samples, channels, optimizer, 'cpu')
    expected = cost.gradient + cost.working
    # The memory of drawn rows is kept from the step before.
    kept = 0 if head.sampled is None else sum(rows.nbytes for rows in head.sampled.spare)
    assert peak_bytes(step) + kept == pytest.approx(expected, rel=0.05)


def step_of(head: MarginHead, optimizer: Any, samples: int) -> Callable[[], None]:
    """Make a training step that ends without gradients."""
    features = torch.randn(samples, head.in_channels)
    labels = [BaseDataElement(gt_label=torch.tensor([number])) for number in range(samples)]

    def step() -> None:
        x = features.clone().requires_grad_()
        head.loss((x,), labels)['loss'].backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(identities=0), 'identities must be .*at least 1'),
        (dict(gpus=1.5), 'gpus must be a whole number'),
        (dict(rate=0), 'rate must be above 0'),
        (dict(optimizer='lion'), "optimizer must be one of .*'lion'"),
        (dict(device='tpu'), "device must be one of .*'tpu'"),
    ],
)
def test_wrong_options_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        head_cost(**{'identities': 1000, **change})


def test_a_line_is_found_and_weighs_relative_errors() -> None:
    line = fit_line([10, 1000, 100_000], [7.0, 205.0, 20_005.0])
    assert (line.start, line.slope) == (pytest.approx(5.0), pytest.approx(0.2))
    assert line.residuals == pytest.approx((0, 0, 0), abs=1e-9)
    # One tenth more at the far end moves the near end by far less than one tenth.
    line = fit_line([10, 1000, 100_000], [7.0, 205.0, 22_005.0])
    assert abs(line.residuals[0]) < 0.01 and 0 < line.residuals[2] < 0.1


@pytest.mark.parametrize(
    ('identities', 'values', 'message'),
    [
        ([5, 5], [1.0, 2.0], 'two numbers of identities'),
        ([5, 6], [1.0], 'two numbers of identities'),
        ([5, 6], [1.0, 0.0], 'values must be above 0'),
    ],
)
def test_points_without_a_line(identities: list[int], values: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_line(identities, values)


def test_the_table_marks_what_is_computed_and_what_is_published() -> None:
    lines = cost_table([10**6], [1, 8], [1.0]).splitlines()
    kinds = [line.split(' | ')[0].removeprefix('| ') for line in lines[2:]]
    assert kinds == ['computed'] * 2 + ['computed', 'published'] * 2
    assert len({line.count('|') for line in lines}) == 1
    # A computed row has no speed, a published one no parts.
    assert all(line.endswith('|  |') == line.startswith('| computed') for line in lines[2:])
    assert '| 2.05 | 2.05 | 2.05 |' in lines[2]


def test_an_identity_costs_centre_momentum_and_a_tenth_of_three_copies() -> None:
    own, published = bytes_per_identity()
    assert own == pytest.approx(2048 * 2.3, rel=0.01)
    assert published == pytest.approx(8 * 22.1e9 / 23.5e6)
