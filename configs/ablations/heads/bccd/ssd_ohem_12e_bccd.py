# The first row of the comparison: SSD with the losses of the paper, which our head has by default:
# cross entropy over the three hardest negatives per positive, and smooth L1. All images are
# of 320 x 240 px, as SSD wants one size.
_base_ = '../../_base_/half_r18_fpn_12e_bccd.py'

model = dict(
    type='SingleStageDetector',
    backbone=dict(out_indices=(1, 2, 3)),
    neck=dict(in_channels=[64, 128, 256], start_level=0, num_outs=4),
    bbox_head=dict(
        type='mmdet_ext.SSDHead',
        num_classes=3,
        in_channels=(64, 64, 64, 64),
        anchor_generator=dict(
            type='SSDAnchorGenerator',
            scale_major=False,
            input_size=320,
            strides=[8, 16, 32, 64],
            ratios=([2], [2], [2], [2]),
            min_sizes=[20, 40, 70, 110],
            max_sizes=[40, 70, 110, 160],
        ),
        bbox_coder=dict(
            type='DeltaXYWHBBoxCoder',
            target_means=[0.0, 0.0, 0.0, 0.0],
            target_stds=[0.1, 0.1, 0.2, 0.2],
        ),
    ),
    train_cfg=dict(
        assigner=dict(
            type='mmdet_ext.MaxIoUAssigner',
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
