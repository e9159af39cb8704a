"""Configs of small YOLO detectors, each with our networks in all of its places."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.hosts.detectors import CLASSES, TEST, detector

#: Factor that leaves 8 of 256 channels.
WIDTH = 1 / 32
ANCHORS = ((0.5, 0.5), (1.2, 0.8))
SIDES = [[(60, 45), (78, 99)], [(30, 31), (42, 25)], [(10, 13), (23, 13)]]


def yolov1() -> dict[str, Any]:
    """Return the config of a YOLOv1 whose grid is 2 x 2, for images of 128 px."""
    return _detector(
        64,
        backbone=dict(type='mmdet_ext.YOLOV1Backbone', width=WIDTH),
        bbox_head=dict(
            type='mmdet_ext.YOLOV1Head',
            num_classes=CLASSES,
            in_channels=32,
            grid_size=2,
            fc_channels=16,
        ),
    )


def yolov2() -> dict[str, Any]:
    """Return the config of a YOLOv2 with two anchors."""
    return _detector(
        32,
        backbone=dict(type='mmdet_ext.Darknet19', width=WIDTH),
        neck=dict(
            type='mmdet_ext.YOLOV2Neck', in_channels=(16, 32), out_channels=16, fine_channels=8
        ),
        bbox_head=dict(
            type='mmdet_ext.YOLOV2Head',
            num_classes=CLASSES,
            in_channels=48,
            anchors=ANCHORS,
            feat_channels=16,
        ),
    )


def yolov4() -> dict[str, Any]:
    """Return the config of a YOLOv4 with two anchors per level."""
    model = _detector(
        32,
        backbone=dict(type='mmdet_ext.CSPDarknet53', width=WIDTH),
        neck=dict(type='mmdet_ext.YOLOV4Neck', in_channels=(8, 16, 32)),
        bbox_head=dict(
            type='mmdet_ext.YOLOV3Head',
            num_classes=CLASSES,
            in_channels=[16, 8, 4],
            out_channels=[8, 8, 8],
            anchor_generator=dict(
                type='YOLOAnchorGenerator', strides=[32, 16, 8], base_sizes=SIDES
            ),
            bbox_coder=dict(type='YOLOBBoxCoder'),
            featmap_strides=[32, 16, 8],
            scale_x_y=(1.05, 1.1, 1.2),
        ),
        train_cfg=dict(assigner=dict(type='mmdet_ext.YOLOv4Assigner')),
    )
    model['type'] = 'mmdet_ext.YOLOV4'
    return model


def yolov5() -> dict[str, Any]:
    """Return the config of a YOLOv5 with two anchors per level."""
    channels = (8, 16, 32)
    return _detector(
        32,
        backbone=dict(type='mmdet_ext.YOLOv5Backbone', depth=0.33, width=WIDTH),
        neck=dict(type='mmdet_ext.YOLOv5Neck', in_channels=channels, depth=0.33),
        bbox_head=dict(
            type='mmdet_ext.YOLOv5Head',
            num_classes=CLASSES,
            in_channels=channels,
            anchors=SIDES[::-1],
            image_size=128,
        ),
    )


def _detector(divisor: int, **parts: Any) -> dict[str, Any]:
    model = detector('SingleStageDetector', test_cfg=TEST)
    model.pop('neck')
    model['data_preprocessor']['pad_size_divisor'] = divisor
    model.update(parts)
    return model


#: Our networks by name, each with a detector that has it.
YOLO: dict[str, Callable[[], dict[str, Any]]] = {
    'YOLOV1Backbone': yolov1,
    'YOLOV1Head': yolov1,
    'Darknet19': yolov2,
    'YOLOV2Neck': yolov2,
    'YOLOV2Head': yolov2,
    'CSPDarknet53': yolov4,
    'YOLOV4Neck': yolov4,
    'YOLOV4': yolov4,
    'YOLOv5Backbone': yolov5,
    'YOLOv5Neck': yolov5,
    'YOLOv5Head': yolov5,
}
