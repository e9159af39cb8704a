# CornerNet with mmdet's head: heat maps of upper left and lower right corners, paired by an
# embedding, on one small hourglass. Images are of 256 x 192 px, as the hourglass halves them five
# times.
_base_ = [
    '../_base_/models/single_stage_r18_fpn.py',
    '../_base_/datasets/shapes.py',
    '../_base_/schedules/adamw_12e.py',
    '../_base_/runtime.py',
]

model = dict(
    type='CornerNet',
    backbone=dict(
        _delete_=True,
        type='HourglassNet',
        downsample_times=3,
        num_stacks=1,
        stage_channels=[64, 64, 96, 128],
        stage_blocks=[1, 1, 1, 1],
        feat_channel=64,
        norm_cfg=dict(type='BN', requires_grad=True),
    ),
    neck=None,
    bbox_head=dict(
        type='CornerHead',
        num_classes=3,
        in_channels=64,
        num_feat_levels=1,
        corner_emb_channels=1,
        loss_heatmap=dict(type='GaussianFocalLoss', alpha=2.0, gamma=4.0, loss_weight=1.0),
        loss_embedding=dict(type='mmdet_ext.CornerGroupingLoss', pull_weight=0.1, push_weight=0.1),
        loss_offset=dict(type='SmoothL1Loss', beta=1.0, loss_weight=1.0),
    ),
    test_cfg=dict(
        _delete_=True,
        corner_topk=100,
        local_maximum_kernel=3,
        distance_threshold=0.5,
        score_thr=0.05,
        max_per_img=100,
        nms=dict(type='soft_nms', iou_threshold=0.5, method='gaussian'),
    ),
)
train_dataloader = dict(batch_size=4)
