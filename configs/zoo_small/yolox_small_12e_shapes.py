# YOLOX with mmdet's head: anchor-free, decoupled, with SimOTA. A quarter of the channels of
# YOLOX-l; without mosaic and mixup, so that the leaves of this folder see the same images.
_base_ = [
    '../_base_/models/single_stage_r18_fpn.py',
    '../_base_/datasets/shapes.py',
    '../_base_/schedules/adamw_12e.py',
    '../_base_/runtime.py',
]

model = dict(
    type='YOLOX',
    data_preprocessor=dict(_delete_=True, type='DetDataPreprocessor', pad_size_divisor=32),
    backbone=dict(
        _delete_=True,
        type='CSPDarknet',
        deepen_factor=0.33,
        widen_factor=0.25,
        out_indices=(2, 3, 4),
    ),
    neck=dict(
        _delete_=True,
        type='YOLOXPAFPN',
        in_channels=[64, 128, 256],
        out_channels=64,
        num_csp_blocks=1,
    ),
    bbox_head=dict(type='YOLOXHead', num_classes=3, in_channels=64, feat_channels=64),
    train_cfg=dict(assigner=dict(type='SimOTAAssigner', center_radius=2.5)),
    test_cfg=dict(_delete_=True, score_thr=0.01, nms=dict(type='nms', iou_threshold=0.65)),
)
