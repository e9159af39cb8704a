# YOLOv3 with mmdet's head: three levels, three anchors each, logistic classes. The backbone is the
# common ResNet-18, as mmdet's Darknet-53 has one width; anchors are those of the YOLOv4 leaf.
_base_ = [
    '../_base_/models/single_stage_r18_fpn.py',
    '../_base_/datasets/shapes.py',
    '../_base_/schedules/adamw_12e.py',
    '../_base_/runtime.py',
]

model = dict(
    type='YOLOV3',
    backbone=dict(out_indices=(1, 2, 3)),
    neck=dict(
        _delete_=True,
        type='YOLOV3Neck',
        num_scales=3,
        in_channels=[256, 128, 64],
        out_channels=[128, 64, 32],
    ),
    bbox_head=dict(
        type='YOLOV3Head',
        num_classes=3,
        in_channels=[128, 64, 32],
        out_channels=[128, 64, 32],
        anchor_generator=dict(
            type='YOLOAnchorGenerator',
            base_sizes=[
                [(70, 45), (54, 60), (76, 74)],
                [(27, 28), (37, 33), (44, 45)],
                [(10, 10), (15, 14), (20, 20)],
            ],
            strides=[32, 16, 8],
        ),
        bbox_coder=dict(type='YOLOBBoxCoder'),
        featmap_strides=[32, 16, 8],
        loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=1.0, reduction='sum'),
        loss_conf=dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=1.0, reduction='sum'),
        loss_xy=dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=2.0, reduction='sum'),
        loss_wh=dict(type='MSELoss', loss_weight=2.0, reduction='sum'),
    ),
    train_cfg=dict(
        assigner=dict(type='GridAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0)
    ),
    test_cfg=dict(conf_thr=0.005, nms=dict(iou_threshold=0.45)),
)
