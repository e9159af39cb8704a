"""YOLOV1Head and YOLOV2Head name maps and labels that do not fit, as the heads of several maps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

from mmdet_ext.registry import MODELS

CLASSES, CHANNELS, SIDE, STRIDE = 3, 4, 2, 32
TEST = ConfigDict(score_thr=0.05, nms=dict(type='nms', iou_threshold=0.5), max_per_img=10)
HEADS = {
    'YOLOV1Head': dict(grid_size=SIDE, fc_channels=8),
    'YOLOV2Head': dict(stride=STRIDE, feat_channels=0, anchors=((1.0, 1.0),)),
}


def head(name: str) -> Any:
    return MODELS.build(
        dict(
            type=f'mmdet_ext.{name}',
            num_classes=CLASSES,
            in_channels=CHANNELS,
            test_cfg=TEST,
            **HEADS[name],
        )
    )


def sample(label: int = 0, side: int = SIDE * STRIDE) -> DetDataSample:
    found = DetDataSample(
        gt_instances=InstanceData(
            bboxes=torch.tensor([[2.0, 2.0, 30.0, 40.0]]), labels=torch.tensor([label])
        ),
        ignored_instances=InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0).long()),
    )
    found.set_metainfo(
        dict(img_shape=(side, side), batch_input_shape=(side, side), scale_factor=(1.0, 1.0))
    )
    return found


def maps(channels: int = CHANNELS) -> list[torch.Tensor]:
    """Return two maps, of which the heads take the last."""
    return [torch.zeros(1, 1, 9, 9), torch.zeros(1, channels, SIDE, SIDE)]


@pytest.mark.parametrize('name', HEADS)
def test_the_last_map_is_used_and_what_fits_passes(name: str) -> None:
    model = head(name)
    assert all(value.isfinite() for value in model.loss(maps(), [sample()]).values())
    only = head(name)
    only.load_state_dict(model.state_dict())
    for key, value in only.eval().loss(maps()[1:], [sample()]).items():
        torch.testing.assert_close(value, model.eval().loss(maps(), [sample()])[key])
    (found,) = model.predict(maps(), [sample()])
    assert found.bboxes.shape[1] == 4


@pytest.mark.parametrize('name', HEADS)
def test_a_map_of_other_channels_is_named_with_both_numbers(name: str) -> None:
    with pytest.raises(ValueError, match=f'{name} has in_channels=4, but got a map of 6 channels'):
        head(name)(maps(6))


@pytest.mark.parametrize('name', HEADS)
def test_a_label_beyond_the_classes_is_named_before_the_maps_are_used(name: str) -> None:
    message = f'{name} has num_classes=3, but the ground truth has the label 5, .* at least 6'
    with pytest.raises(ValueError, match=message):
        head(name).loss(maps(), [sample(5)])


def test_a_map_of_another_stride_is_named_with_both_sizes() -> None:
    message = r'the stride \(32, 32\) in level 0, which makes 4 x 4 .* got a feature map of 2 x 2'
    with pytest.raises(ValueError, match=message):
        head('YOLOV2Head').loss(maps(), [sample(side=128)])
    with pytest.raises(ValueError, match=message):
        head('YOLOV2Head').predict(maps(), [sample(side=128)])
