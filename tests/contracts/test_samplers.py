"""Contract of every registered sampler."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mmdet.models.task_modules.assigners import AssignResult
from mmdet.models.task_modules.samplers import SamplingResult
from mmdet.registry import TASK_UTILS
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_ext.catalog.case import Case
from mmdet_ext.catalog.cases import cases_of
from mmdet_ext.catalog.synthetic import random_boxes

pytestmark = pytest.mark.parametrize('case', cases_of('sampler'), ids=lambda case: case.name)

PRIORS, BOXES = 200, 6


def assignment(seed: int, positives: int, ignored: int = 20) -> tuple[Tensor, Tensor]:
    """Make 1-based indices of ground truths (-1 ignored, 0 background), and priors (P, 4)."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(PRIORS, generator=generator)
    index = torch.zeros(PRIORS, dtype=torch.long)
    index[order[:positives]] = 1 + torch.arange(positives) % BOXES
    index[order[positives : positives + ignored]] = -1
    return index, random_boxes(generator, PRIORS)


def sample(case: Case, index: Tensor, priors: Tensor, **options: Any) -> SamplingResult:
    """Build the sampler of a case and sample an assignment with random losses."""
    sampler = TASK_UTILS.build({'type': f'mmdet_ext.{case.name}', **case.options, **options})
    generator = torch.Generator().manual_seed(9)
    count = int(index.max().clamp(min=0))
    labels = torch.arange(count) % 3
    gt = InstanceData(bboxes=random_boxes(generator, count), labels=labels)
    assigned = torch.full_like(index, -1)
    assigned[index > 0] = labels[index[index > 0] - 1]
    result = AssignResult(count, index.clone(), torch.zeros(len(index)), assigned)
    pred = InstanceData(priors=priors, losses=torch.rand(len(priors), generator=generator))
    return sampler.sample(result, pred, gt)


@pytest.mark.parametrize(
    ('positives', 'options', 'expected'),
    [
        (10, dict(num=40, pos_fraction=0.5), (10, 30)),
        (60, dict(num=40, pos_fraction=0.5), (20, 20)),
        (10, dict(num=40, pos_fraction=0.5, neg_pos_ub=2), (10, 20)),
        (0, dict(num=40, pos_fraction=0.5, neg_pos_ub=3), (0, 3)),
        (10, dict(num=40, pos_fraction=0.5, neg_pos_ub=0), (10, 0)),
        (10, dict(num=1000, pos_fraction=0.5), (10, 170)),
        (10, dict(num=3, pos_fraction=1.0), (3, 0)),
        (0, dict(num=40, pos_fraction=0.25), (0, 40)),
    ],
)
def test_positives_and_negatives_are_as_many_as_asked_for(
    case: Case, positives: int, options: dict[str, Any], expected: tuple[int, int]
) -> None:
    index, priors = assignment(0, positives)
    result = sample(case, index, priors, **options)
    assert (len(result.pos_inds), len(result.neg_inds)) == expected
    assert (index[result.pos_inds] > 0).all() and (index[result.neg_inds] == 0).all()
    for found in (result.pos_inds, result.neg_inds):
        assert torch.equal(found, found.unique())
    assert torch.equal(result.pos_assigned_gt_inds, index[result.pos_inds] - 1)
    torch.testing.assert_close(result.neg_priors, priors[result.neg_inds], rtol=0, atol=0)


def test_ground_truth_joins_the_priors_where_asked(case: Case) -> None:
    index, priors = assignment(0, 10)
    result = sample(case, index, priors, num=400, pos_fraction=0.5, add_gt_as_proposals=True)
    assert result.pos_is_gt.sum() == BOXES and len(result.pos_inds) == 10 + BOXES
    assert torch.equal(result.neg_inds - BOXES, (index == 0).nonzero().squeeze(1))


def test_wrong_options_are_refused_by_name(case: Case) -> None:
    for options, message in (
        (dict(num=0, pos_fraction=0.5), 'num must be at least 1, got 0'),
        (dict(num=4, pos_fraction=1.5), r'pos_fraction must be in \[0, 1\], got 1.5'),
    ):
        with pytest.raises(ValueError, match=message):
            TASK_UTILS.build(dict(type=f'mmdet_ext.{case.name}', **options))
    with pytest.raises(TypeError, match="no option 'pos_fractoin'; did you mean 'pos_fraction'"):
        TASK_UTILS.build(dict(type=f'mmdet_ext.{case.name}', num=4, pos_fractoin=0.5))
