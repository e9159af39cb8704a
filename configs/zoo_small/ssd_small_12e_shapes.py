# SSD: several maps, each with anchors of its own size, and no network for proposals. The head is
# ours, as mmdet's cannot predict in 3.3; its losses are those of the paper. The maps are those of
# the common ResNet-18 with one more behind them, in place of VGG-16; no path joins them.
_base_ = [
    '../_base_/models/single_stage_r18_fpn.py',
    '../_base_/datasets/shapes.py',
    '../_base_/schedules/adamw_12e.py',
    '../_base_/runtime.py',
]

model = dict(
    type='SingleStageDetector',
    backbone=dict(out_indices=(1, 2, 3)),
    neck=dict(
        _delete_=True,
        type='ChannelMapper',
        in_channels=[64, 128, 256],
        kernel_size=1,
        out_channels=64,
        norm_cfg=dict(type='BN'),
        num_outs=4,
    ),
    bbox_head=dict(
        type='mmdet_ext.SSDHead',
        num_classes=3,
        in_channels=(64, 64, 64, 64),
        anchor_generator=dict(
            type='SSDAnchorGenerator',
            scale_major=False,
            input_size=240,
            strides=[8, 16, 32, 64],
            ratios=([2], [2], [2], [2]),
            min_sizes=[10, 25, 50, 80],
            max_sizes=[25, 50, 80, 120],
        ),
        bbox_coder=dict(
            type='DeltaXYWHBBoxCoder',
            target_means=[0.0, 0.0, 0.0, 0.0],
            target_stds=[0.1, 0.1, 0.2, 0.2],
        ),
    ),
    train_cfg=dict(
        assigner=dict(
            type='MaxIoUAssigner',
            pos_iou_thr=0.5,
            neg_iou_thr=0.5,
            min_pos_iou=0.0,
            gt_max_assign_all=False,
        ),
        sampler=dict(type='PseudoSampler'),
        smoothl1_beta=1.0,
        allowed_border=-1,
        pos_weight=-1,
        neg_pos_ratio=3,
        debug=False,
    ),
    test_cfg=dict(nms=dict(iou_threshold=0.45)),
)
train_dataloader = dict(batch_size=4)
