# EfficientDet-D0 in its sizes: EfficientNet-B0, three BiFPN stages of 64 channels, three
# convolutions in each branch of the head with norms per level. Anchors are half as large, as most
# shapes are small. The paper's Huber loss of 0.1, times 50 over four numbers, is smooth L1 times
# 1.25.
_base_ = [
    '../../_base_/datasets/shapes.py',
    '../../_base_/schedules/adamw_12e.py',
    '../../_base_/runtime.py',
]

model = dict(
    type='RetinaNet',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=32,
    ),
    backbone=dict(
        type='EfficientNet',
        arch='b0',
        drop_path_rate=0.2,
        out_indices=(3, 4, 5),
        norm_cfg=dict(type='BN', eps=1e-3, momentum=0.01),
    ),
    neck=dict(
        type='mmdet_ext.BiFPN',
        in_channels=[40, 112, 320],
        out_channels=64,
        num_outs=5,
        num_stages=3,
    ),
    bbox_head=dict(
        type='RetinaSepBNHead',
        num_classes=3,
        num_ins=5,
        in_channels=64,
        feat_channels=64,
        stacked_convs=3,
        norm_cfg=dict(type='BN', eps=1e-3, momentum=0.01),
        anchor_generator=dict(
            type='AnchorGenerator',
            octave_base_scale=2,
            scales_per_octave=3,
            ratios=[0.5, 1.0, 2.0],
            strides=[8, 16, 32, 64, 128],
        ),
        bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
        loss_cls=dict(type='mmdet_ext.FocalLoss', use_sigmoid=True, gamma=1.5, alpha=0.25),
        loss_bbox=dict(type='mmdet_ext.SmoothL1Loss', beta=0.1, loss_weight=1.25),
    ),
    train_cfg=dict(
        assigner=dict(
            type='mmdet_ext.MaxIoUAssigner',
            pos_iou_thr=0.5,
            neg_iou_thr=0.5,
            min_pos_iou=0.01,
            ignore_iof_thr=-1,
        ),
        sampler=dict(type='PseudoSampler'),
        allowed_border=-1,
        pos_weight=-1,
        debug=False,
    ),
    test_cfg=dict(
        nms_pre=1000,
        min_bbox_size=0,
        score_thr=0.05,
        nms=dict(type='nms', iou_threshold=0.5),
        max_per_img=100,
    ),
)
train_dataloader = dict(batch_size=4)
