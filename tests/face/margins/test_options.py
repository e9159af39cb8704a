"""Options of margins: errors, and values set during training."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from mmdet_ext.face.heads import MarginHead, build_margin
from tests._helpers.face.margin_heads import CHANNELS, CLASSES, batch, gradients, make_head

LIST = [0.05 * k for k in range(CLASSES)]


@pytest.mark.parametrize(
    ('margin', 'error', 'message'),
    [
        (dict(type='CosFace', m=[0.1, 0.2]), ValueError, 'm has margins .* for 2 classes.*=13'),
        (dict(type='ArcFace', m=dict(counts=[3] * 12)), ValueError, 'for 12 classes.*=13'),
        (
            dict(type='CombinedMargin', m3=[0.1] * 14),
            ValueError,
            'm3 has margins .* for 14 classes',
        ),
        (dict(type='UniFace', m=[0.1] * 14), ValueError, 'm has margins'),
        (dict(type='ArcFace', m=dict(high=0.3)), ValueError, 'got no counts'),
        (
            dict(type='ArcFace', m=dict(counts=[1], hihg=0.3)),
            ValueError,
            r"unknown keys \['hihg'\]",
        ),
        (
            dict(type='ArcFace', m=dict(counts=[1], low=0.6)),
            ValueError,
            'low must not be above high',
        ),
        (dict(type='ArcFace', m=dict(counts=[1, -1])), ValueError, 'counts'),
        (dict(type='ArcFace', m=dict(counts='absent.json')), FileNotFoundError, 'absent.json'),
        (dict(type='ArcFace', m='0.5'), TypeError, "m must be a number, a list .*'0.5'"),
        (dict(type='ArcFace', m=[0.1, '0.1']), TypeError, "m must be numbers, got '0.1'"),
        (dict(type='ArcFace', m=math.pi), ValueError, 'm must be from 0 to below 3.142'),
        (dict(type='ArcFace', m=[0.1, -0.1]), ValueError, 'm must be from 0 .*-0.1'),
        (dict(type='CosFace', m=math.nan), ValueError, 'm must be finite, got nan'),
        (dict(type='ArcFace', gradient='exact'), ValueError, "or 'straight_through', got 'exact'"),
        (dict(type='SphereFace', m=2.5), ValueError, 'm must be a whole number, got 2.5'),
        (dict(type='SphereFace', m=0), ValueError, 'm of SphereFace must be from 1 to 16, got 0'),
        (
            dict(type='LSoftmax', lambda_min=-1),
            ValueError,
            'lambda_min of LSoftmax must be at least 0',
        ),
        (
            dict(type='CombinedMargin', m1=0.5),
            ValueError,
            'm1 of CombinedMargin must be from 1 to 16',
        ),
        (dict(type='AdaFace', m=2), ValueError, 'm must be from 0 to below 1.571, got 2'),
        (dict(type='AdaFace', momentum=1.5), ValueError, 'momentum of AdaFace must be from 0 to 1'),
        (dict(type='CurricularFace', momentum=-1), ValueError, 'momentum of CurricularFace'),
        (dict(type='MagFace', norms=(0, 5)), ValueError, r'0 < l < u, got \(0, 5\)'),
        (dict(type='MagFace', margins=(0.5, 0.4)), ValueError, '0 <= low <= high < pi'),
        (dict(type='MagFace', penalty_weight=-1), ValueError, 'penalty_weight of MagFace'),
        (dict(type='SphereFaceR', m=0.9), ValueError, 'm of SphereFaceR must be from 1 to 16'),
        (dict(type='SphereFaceR', version='v3'), ValueError, "'v0', 'v1' or 'v2', got 'v3'"),
        (dict(type='UniFace', negative_weight=-1), ValueError, 'negative_weight of UniFace'),
        (dict(type='UniFace', bias='0'), TypeError, "bias of UniFace must be one number, got '0'"),
        (dict(type='ArcFace', m=True), TypeError, 'm must be a number, a list .*True'),
        (dict(type='CosFace', m=[0.1] * 12 + [True]), TypeError, 'm must be numbers, got True'),
        (
            dict(type='CosFace', m=torch.ones(CLASSES, 2)),
            TypeError,
            r'm must be numbers, got \[1.0',
        ),
        (dict(type='CosFace', m=np.full(12, 0.1)), ValueError, 'm has margins .* for 12 classes'),
        (dict(type='AdaFace', m=[0.1] * 12), ValueError, 'm has margins .* for 12 classes.*=13'),
        (dict(type='AdaFace', m='0.4'), TypeError, "m must be a number, a list .*'0.4'"),
        (dict(type='AdaFace', h=[1.0]), TypeError, 'h of AdaFace must be one number'),
        (
            dict(type='SphereFace', m=True),
            TypeError,
            'm of SphereFace must be one number, got True$',
        ),
        (dict(type='SphereFace', m='4'), TypeError, "m of SphereFace must be one number, got '4'$"),
        (
            dict(type='SphereFace', lambda_min=50, lambda_max=1),
            ValueError,
            'min=50 .*above .*max=1:',
        ),
        (dict(type='LSoftmax', lambda_max=0), ValueError, 'lambda_min=5.0 of LSoftmax is above'),
        (dict(type='MagFace', margins=0.5), ValueError, 'margins must be two angles.*got 0.5'),
        (dict(type='MagFace', margins=(0, 0.1, 0.2)), ValueError, 'margins must be two angles'),
        (dict(type='MagFace', norms='ab'), ValueError, "norms must be two lengths.*got 'ab'"),
    ],
)
def test_wrong_options_are_named(margin: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        MarginHead(CLASSES, CHANNELS, margin)


@pytest.mark.parametrize(
    ('name', 'options', 'option', 'value'),
    [
        ('ArcFace', dict(m=0.5), 'm', 0.2),
        ('CosFace', dict(m=LIST), 'm', 0),
        ('CombinedMargin', {}, 'm1', 2),
        ('CombinedMargin', {}, 'm2', 0.4),
        ('CombinedMargin', {}, 'm3', 0.4),
        ('AdaFace', {}, 'm', 0.2),
        ('AdaFace', {}, 'h', 2.0),
        ('CurricularFace', {}, 'm', 0),
        ('SphereFaceR', {}, 'm', 2),
        ('UniFace', {}, 'm', 0.1),
        ('SphereFace', dict(lambda_max=0, lambda_min=0), 'm', 2.0),
        ('SphereFace', {}, 'lambda_max', 30.0),
        ('UniFace', {}, 'negative_weight', 0.5),
        ('MagFace', dict(norms=(1, 5)), 'penalty_weight', 3),
    ],
)
def test_set_margin_equals_a_margin_built_with_the_value(
    name: str, options: dict[str, Any], option: str, value: float
) -> None:
    head = make_head(name, **options)
    before = gradients(make_head(name, **options), *batch())
    head.margin.set_margin(option, value)
    built = gradients(make_head(name, **{**options, option: value}), *batch())
    found = gradients(head, *batch())
    assert all(one.equal(other) for one, other in zip(found, built, strict=True))
    assert not found[0].equal(before[0])


@pytest.mark.parametrize(
    ('name', 'option', 'value', 'message'),
    [
        ('ArcFace', 'm2', 0.1, "ArcFace has no number named 'm2' to set; it has: m$"),
        ('ArcFace', 'easy_margin', 1, "no number named 'easy_margin'"),
        ('ArcFace', 'm', 3.2, 'm must be from 0 to below 3.142, got 3.2'),
        ('NormFace', 'm', 0.1, 'it has: none'),
        ('Softmax', 'has_bias', 1, 'it has: none'),
        ('SphereFaceR', 'm', 0.5, 'm of SphereFaceR must be from 1 to 16, got 0.5'),
        ('SphereFace', 'm', 2.5, 'm must be a whole number'),
        ('AdaFace', 'm', -0.1, 'm must be from 0 to below 1.571'),
        (
            'SphereFace',
            'lambda_min',
            2e3,
            'lambda_min=2000.0 of SphereFace is above lambda_max=1000',
        ),
        ('AdaFace', 'h', math.nan, 'h of AdaFace must be at least 0 and finite, got nan'),
        ('UniFace', 'bias', 1, "no number named 'bias' to set; it has: negative_weight, m$"),
    ],
)
def test_set_margin_refuses_unknown_names_and_wrong_values(
    name: str, option: str, value: float, message: str
) -> None:
    margin = build_margin(dict(type=name), CLASSES)
    with pytest.raises(ValueError, match=message):
        margin.set_margin(option, value)
