# The first row of the comparison: mmdet's YOLOv3 head with its losses, 12 epochs. Anchors suit
# the cells at 320 x 240: white, red, platelets.
_base_ = '../../_base_/half_r18_fpn_12e_bccd.py'

model = dict(
    type='YOLOV3',
    backbone=dict(out_indices=(1, 2, 3)),
    neck=dict(
        _delete_=True,
        type='YOLOV3Neck',
        num_scales=3,
        in_channels=[256, 128, 64],
        out_channels=[64, 64, 64],
    ),
    bbox_head=dict(
        type='YOLOV3Head',
        num_classes=3,
        in_channels=[64, 64, 64],
        out_channels=[64, 64, 64],
        anchor_generator=dict(
            type='YOLOAnchorGenerator',
            base_sizes=[
                [(80, 80), (110, 95), (130, 130)],
                [(44, 44), (54, 50), (60, 60)],
                [(16, 16), (22, 20), (32, 32)],
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
        assigner=dict(type='GridAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0),
    ),
    test_cfg=dict(
        _delete_=True,
        nms_pre=1000,
        min_bbox_size=0,
        score_thr=0.05,
        conf_thr=0.005,
        nms=dict(type='nms', iou_threshold=0.45),
        max_per_img=100,
    ),
)
