"""Record of assignments, for assigners in any place of a model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.structures import InstanceData

from mmdet_ext.detection.inspection.record import NoPlaceError, recorded_assignments


class Holder(torch.nn.Module):
    """Module that holds assigners in dicts, lists and tuples, and one of them twice."""

    def __init__(self) -> None:
        super().__init__()
        costs = [dict(type='BBoxL1Cost', box_format='xyxy')]
        self.queries = {
            'stages': [TASK_UTILS.build(dict(type='HungarianAssigner', match_costs=costs))]
        }
        regions = dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5)
        self.proposals = (TASK_UTILS.build(regions),)
        self.again = self.proposals


def test_assigners_within_containers_and_predicted_boxes_are_recorded() -> None:
    boxes = torch.tensor([[0.0, 0, 8, 8], [20, 20, 40, 60]])
    gt = InstanceData(bboxes=boxes, labels=torch.tensor([0, 1]))
    found = torch.tensor([[21.0, 20, 41, 60], [1, 1, 9, 9], [70, 70, 80, 80]])
    holder = Holder()
    meta = {'img_meta': {'img_shape': (100, 100)}}
    with recorded_assignments(holder) as records:
        assigner = holder.queries['stages'][0]
        assigner.assign(InstanceData(bboxes=found), gt, **meta)
        holder.again[0].assign(InstanceData(priors=found), gt, **meta)
        masks = InstanceData(masks=torch.zeros(3, 4, 4), bboxes=found)
        masks.pop('bboxes')
        with pytest.raises(NoPlaceError, match=r'HungarianAssigner of the head .* with masks'):
            holder.queries['stages'][0].match_costs = [lambda **_: torch.zeros(3, 2)]
            assigner.assign(masks, gt, **meta)
    assert [record.places for record in records] == ['predicted boxes', 'priors']
    for record in records:
        assert record.gt_index.tolist() == [1, 0, -1]
        assert record.centers.tolist() == [[31, 40], [5, 5], [75, 75]]
        assert record.level.tolist() == [0, 0, 0]
    assert 'assign' not in vars(assigner) | vars(holder.again[0])


@pytest.mark.parametrize('scope', ['mmdet', 'mmdet_ext'])
def test_levels_follow_from_the_priors_where_the_head_gives_none(scope: str) -> None:
    """RetinaNet's anchors are looked up. Afterwards the head is as it was before."""
    config: dict[str, Any] = dict(
        type=f'{scope}.RetinaHead',
        num_classes=3,
        in_channels=8,
        stacked_convs=1,
        feat_channels=8,
        anchor_generator=dict(
            type='AnchorGenerator',
            octave_base_scale=4,
            scales_per_octave=3,
            ratios=[0.5, 1.0, 2.0],
            strides=[8, 16, 32],
        ),
        train_cfg=Config(
            dict(
                assigner=dict(
                    type=f'{scope}.MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0
                ),
                allowed_border=-1,
                pos_weight=-1,
            )
        ),
    )
    head = MODELS.build(config)
    sample = DetDataSample(metainfo=dict(img_shape=(64, 96), pad_shape=(64, 96)))
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor([[8.0, 8, 40, 40], [20, 4, 90, 60]]), labels=torch.tensor([0, 1])
    )
    maps = tuple(torch.zeros(1, 8, 64 // s, 96 // s) for s in (8, 16, 32))
    before = {
        name: vars(value).copy() for name, value in vars(head).items() if hasattr(value, '__dict__')
    }
    with recorded_assignments(head) as records:
        head.loss(maps, [sample])
    (record,) = records
    assert record.level.bincount().tolist() == [9 * 96, 9 * 24, 9 * 6]
    assert (record.gt_index >= 0).sum() > 2 and len(record.gt_boxes) == 2
    for name, kept in before.items():
        assert set(vars(getattr(head, name))) == set(kept), name
