"""Head of the RPN: mmdet's losses, by any assigner of ours, also where a sampler draws."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from torch import nn

from tests._helpers.dense_heads import (
    ANCHORS,
    BATCHES,
    CHANNELS,
    Batch,
    assert_as_mmdet,
    assigner_of,
    spied,
    value,
)

PSEUDO = dict(type='PseudoSampler')
RANDOM = dict(type='RandomSampler', num=24, pos_fraction=0.5, add_gt_as_proposals=False)
HARD = dict(type='mmdet_ext.HardNegativeSampler', num=24, pos_fraction=0.5)
MAX_IOU = dict(pos_iou_thr=0.5, neg_iou_thr=0.3, min_pos_iou=0.3, ignore_iof_thr=0.5)


def rpn(scope: str, assigner: dict[str, Any], sampler: dict[str, Any], border: int = -1) -> Any:
    """Build a small RPN head; its weights do not depend on the scope."""
    torch.manual_seed(0)
    head = MODELS.build(
        ConfigDict(
            type=f'{scope}.RPNHead',
            in_channels=CHANNELS,
            feat_channels=CHANNELS,
            anchor_generator={**ANCHORS, 'ratios': [0.5, 1.0, 2.0]},
            loss_bbox=dict(type='L1Loss'),
            train_cfg=dict(
                assigner=assigner,
                sampler=sampler,
                allowed_border=border,
                pos_weight=-1,
                debug=False,
            ),
        )
    )
    with torch.no_grad():
        for weight in head.parameters():
            weight += 0.05 * torch.randn(weight.shape)
    return head.train()


def batch(name: str) -> Batch:
    """Make a batch whose boxes are all objects, as the RPN gets them."""
    made = Batch(**BATCHES[name])
    for gt in made.gts:
        gt.labels = torch.zeros_like(gt.labels)
    return made


@pytest.fixture(autouse=True)
def _same_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each forward pass begin with the same random numbers, for both heads."""
    forward = nn.Module.__call__

    def seeded(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if type(self).__name__ == 'RPNHead':
            torch.manual_seed(1)
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(nn.Module, '__call__', seeded)


@pytest.mark.parametrize('border', [-1, 0])
@pytest.mark.parametrize('sampler', [PSEUDO, RANDOM, HARD], ids=lambda s: s['type'])
@pytest.mark.parametrize('name', BATCHES)
def test_losses_and_gradients_are_those_of_mmdet(
    name: str, sampler: dict[str, Any], border: int
) -> None:
    ours = rpn('mmdet_ext', dict(type='mmdet_ext.MaxIoUAssigner', **MAX_IOU), sampler, border)
    theirs = rpn('mmdet', dict(type='mmdet.MaxIoUAssigner', **MAX_IOU), sampler, border)
    losses = assert_as_mmdet(ours, theirs, batch(name))
    assert set(losses) == {'loss_rpn_cls', 'loss_rpn_bbox'}
    assert value(losses, 'loss_rpn_cls') > 0


@pytest.mark.parametrize('sampler', [PSEUDO, RANDOM, HARD], ids=lambda s: s['type'])
@pytest.mark.parametrize(
    'assigner',
    [
        dict(type='mmdet_ext.ATSSAssigner', topk=9),
        dict(type='mmdet_ext.TaskAlignedAssigner', topk=13),
        dict(type='mmdet_ext.RFLAAssigner', receptive_fields=[16, 32, 64]),
    ],
    ids=lambda a: a['type'],
)
def test_rules_by_level_or_prediction_match_the_batch_at_once(
    assigner: dict[str, Any], sampler: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    head, made = rpn('mmdet_ext', assigner, sampler), batch('four images')
    calls = spied(assigner_of(head, 0), monkeypatch)
    losses = made.losses(head)
    assert calls == [4]
    assert value(losses, 'loss_rpn_cls') > 0 and value(losses, 'loss_rpn_bbox') > 0
    assert type(head.assigner).__name__ == assigner['type'].rpartition('.')[2]


def test_mmdets_head_does_not_take_a_rule_by_level() -> None:
    head = rpn('mmdet', dict(type='mmdet_ext.ATSSAssigner', topk=9), RANDOM)
    with pytest.raises(TypeError, match='ATSSAssigner goes by pyramid level'):
        batch('one image').losses(head)


def test_samples_are_drawn_from_the_assignment_of_their_image() -> None:
    head, made = (
        rpn('mmdet_ext', dict(type='mmdet_ext.ATSSAssigner', topk=9), RANDOM),
        batch('mixed sizes'),
    )
    made.losses(head)
    results = head._raw_positive_infos['sampling_results']
    assert [result.num_gts for result in results] == [5, 4, 0, 6]
    for result, gt in zip(results, made.gts, strict=True):
        assert len(result.pos_inds) + len(result.neg_inds) == 24
        assert (len(result.pos_inds) > 0) == (len(gt) > 0)
        torch.testing.assert_close(
            result.pos_gt_bboxes.reshape(-1, 4), gt.bboxes[result.pos_assigned_gt_inds]
        )


def test_the_assigner_is_back_after_an_error() -> None:
    head, made = (
        rpn('mmdet_ext', dict(type='mmdet_ext.ATSSAssigner', topk=9), RANDOM),
        batch('four images'),
    )
    own, head.sampler.num = head.assigner, 'many'
    with pytest.raises(TypeError):
        made.losses(head)
    assert head.assigner is own


def test_ground_truth_does_not_join_the_anchors() -> None:
    sampler = {**RANDOM, 'add_gt_as_proposals': True}
    head = rpn('mmdet_ext', dict(type='mmdet_ext.ATSSAssigner', topk=9), sampler)
    with pytest.raises(ValueError, match='RandomSampler of RPNHead has add_gt_as_proposals=True'):
        batch('one image').losses(head)
