"""Margins with one value per class: lists, counts, and the margins that accept them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mmdet_ext.face.heads import build_margin
from mmdet_ext.face.margins.base import per_class_options
from mmdet_ext.face.margins.class_margins import ClassMargins
from tests._helpers.face.margin_heads import CLASSES, make_head

LIST = [0.05 * k for k in range(CLASSES)]


def test_margins_from_counts_are_larger_for_rare_classes() -> None:
    margins = ClassMargins('m', dict(counts=[10_000, 0, 1, 16], high=0.5, low=0.1, power=-0.25))
    found = margins(torch.arange(4)).tolist()
    # The rarities are 10000^-1/4 = 0.1, 1, 1 and 16^-1/4 = 0.5.
    assert found == pytest.approx([0.1, 0.5, 0.5, 0.1 + 0.4 * 0.4 / 0.9])
    margins.bind(4)


def test_margins_from_a_file_of_counts(tmp_path: Path) -> None:
    file = tmp_path / 'counts.json'
    file.write_text(json.dumps(dict(classes=list('abc'), counts=[1, 81, 16])))
    option = dict(counts=str(file), high=0.4, low=0)
    found = make_head('CosFace', classes=3, m=option).margin.m(torch.tensor([0, 1, 2, 0])).tolist()
    # The rarities are 1, 1/3 and 1/2.
    assert found == pytest.approx([0.4, 0, 0.1, 0.4])


def test_balanced_counts_give_equal_margins() -> None:
    margins = ClassMargins('m', dict(counts=[5, 5, 5], high=0.4))
    assert margins(torch.arange(3)).tolist() == pytest.approx([0.4] * 3)


def test_margins_per_class_move_with_the_head_and_stay_out_of_checkpoints() -> None:
    head = make_head('CosFace', m=LIST)
    assert set(head.state_dict()) == {'weight'}
    assert head.to('meta').margin.m.values.device.type == 'meta'
    assert repr(make_head('CosFace', m=LIST).margin.m) == 'ClassMargins(m per class)'
    assert repr(make_head('CosFace', m=0.2).margin.m) == 'ClassMargins(m=0.2)'


def test_margins_per_class_are_refused_with_a_list_of_those_that_take_them() -> None:
    takers = {
        ('AdaFace', 'm'),
        ('ArcFace', 'm'),
        ('CombinedMargin', 'm2'),
        ('CombinedMargin', 'm3'),
        ('CosFace', 'm'),
        ('CurricularFace', 'm'),
        ('UniFace', 'm'),
    }
    for name, option in takers:
        assert name in per_class_options()
        for given in (LIST, tuple(LIST), np.array(LIST), torch.tensor(LIST)):
            found = getattr(build_margin({'type': name, option: given}, CLASSES), option)
            assert found(torch.tensor([4, 0])).tolist() == pytest.approx([LIST[4], LIST[0]])
    for name, option in (
        ('SphereFace', 'm'),
        ('LSoftmax', 'm'),
        ('SphereFaceR', 'm'),
        ('CombinedMargin', 'm1'),
    ):
        for given in ([2] * CLASSES, np.full(CLASSES, 2), dict(counts=[1] * CLASSES)):
            with pytest.raises(TypeError, match=f'{option} of {name} must be one.*take one per cl'):
                build_margin({'type': name, option: given}, CLASSES)
