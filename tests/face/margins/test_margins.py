"""Margins that equal each other, and the losses of single margins."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from tests._helpers.face.margin_heads import (
    CHANNELS,
    CLASSES,
    PATHS,
    SCALE,
    assert_near,
    batch,
    gradients,
    make_head,
    samples,
)


@pytest.mark.parametrize(
    ('one', 'other'),
    [
        (dict(type='CombinedMargin', m1=1, m2=0.5, m3=0), dict(type='ArcFace', m=0.5)),
        (dict(type='CombinedMargin', m1=1, m2=1, m3=0), dict(type='ArcFace', m=1)),
        (dict(type='CombinedMargin', m1=1, m2=0, m3=0.35), dict(type='CosFace', m=0.35)),
        (dict(type='CombinedMargin', m1=1, m2=0, m3=2), dict(type='CosFace', m=2)),
        (dict(type='CombinedMargin', m1=1, m2=0, m3=0), dict(type='NormFace')),
        (dict(type='ArcFace', m=0), dict(type='NormFace')),
        (dict(type='ArcFace', m=0, easy_margin=True), dict(type='NormFace')),
        (dict(type='ArcFace', m=0, gradient='straight_through'), dict(type='NormFace')),
        (dict(type='CosFace', m=0), dict(type='NormFace')),
        (dict(type='AdaFace', m=0), dict(type='NormFace')),
        (dict(type='AdaFace', h=0), dict(type='CosFace', m=0.4)),
        (dict(type='MagFace', margins=(0, 0), penalty_weight=0), dict(type='NormFace')),
        (dict(type='MagFace', margins=(0.5, 0.5), penalty_weight=0), dict(type='ArcFace', m=0.5)),
        *(
            (dict(type='SphereFaceR', m=1, version=f'v{i}'), dict(type='NormFace'))
            for i in range(3)
        ),
        (dict(type='LSoftmax', m=1), dict(type='Softmax')),
        (dict(type='CosFace', m=[0.2] * CLASSES), dict(type='CosFace', m=0.2)),
        (dict(type='ArcFace', m=dict(counts=[9] * CLASSES)), dict(type='ArcFace', m=0.5)),
        (dict(type='ArcFace', m=dict(counts=[9] * CLASSES, high=0.3)), dict(type='ArcFace', m=0.3)),
    ],
)
def test_special_cases_equal_other_margins(one: dict[str, Any], other: dict[str, Any]) -> None:
    for path in PATHS:
        found, expected = (
            gradients(
                make_head(cfg['type'], path=path, **{k: v for k, v in cfg.items() if k != 'type'}),
                *batch(),
            )
            for cfg in (one, other)
        )
        assert_near(found, expected, 1e-5)


def test_psi_on_a_fixed_scale_equals_sphereface_on_features_of_that_length() -> None:
    x, labels = batch()
    x = SCALE * F.normalize(x)
    values = [
        make_head(name, **options).loss((x,), samples(labels))['loss'].item()
        for name, options in (
            ('CombinedMargin', dict(m1=4, m2=0, m3=0)),
            ('SphereFace', dict(m=4, lambda_max=0, lambda_min=0)),
        )
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-5)


def test_margin_increases_the_loss() -> None:
    x, labels = batch()
    plain = make_head('NormFace').loss((x,), samples(labels))['loss']
    for name in ('CosFace', 'ArcFace', 'CombinedMargin', 'AdaFace', 'SphereFaceR'):
        assert make_head(name).loss((x,), samples(labels))['loss'] > plain + 1


def test_uniface_starts_with_the_threshold_of_the_paper() -> None:
    default, given = (
        make_head('UniFace', classes=1000, **o).margin.bias for o in ({}, {'bias': 3})
    )
    assert default.item() == pytest.approx(math.log(10_000)) and given.item() == 3


def test_magface_logs_its_penalty_apart() -> None:
    head = make_head('MagFace', norms=(1, 5), penalty_weight=2.0)
    x = torch.zeros(2, CHANNELS)
    x[0, 0], x[1, 0] = 2, 50
    losses = head.loss((x,), samples(torch.tensor([0, 1])))
    assert losses['loss_length'].item() == pytest.approx((0.5 + 2 / 25) + (0.2 + 0.2))
    assert set(losses) == {'loss', 'loss_length', 'own_cosine'}
