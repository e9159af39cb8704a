# What the comparisons on shapes share: ATSS on a ResNet-18 of half the usual width from scratch,
# images of 240 x 180 px in batches of 8, and 8 epochs. Anchors are half as large as usual, because
# most shapes are small.
_base_ = [
    '../../_base_/models/single_stage_r18_fpn.py',
    '../../_base_/datasets/shapes.py',
    '../../_base_/schedules/adamw_12e.py',
    '../../_base_/runtime.py',
]

model = dict(
    type='ATSS',
    bbox_head=dict(
        type='mmdet_ext.ATSSHead',
        num_classes=3,
        in_channels=64,
        stacked_convs=2,
        feat_channels=64,
        anchor_generator=dict(
            type='AnchorGenerator',
            ratios=[1.0],
            octave_base_scale=4,
            scales_per_octave=1,
            strides=[8, 16, 32, 64, 128],
        ),
        bbox_coder=dict(
            type='DeltaXYWHBBoxCoder',
            target_means=[0.0, 0.0, 0.0, 0.0],
            target_stds=[0.1, 0.1, 0.2, 0.2],
        ),
        loss_cls=dict(
            type='mmdet_ext.FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0
        ),
        loss_bbox=dict(type='mmdet_ext.GIoULoss', loss_weight=2.0),
        loss_centerness=dict(type='mmdet_ext.CrossEntropyLoss', use_sigmoid=True, loss_weight=1.0),
    ),
    train_cfg=dict(
        assigner=dict(type='mmdet_ext.ATSSAssigner', topk=9),
        allowed_border=-1,
        pos_weight=-1,
        debug=False,
    ),
)
train_cfg = dict(max_epochs=8, val_interval=4)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=30),
    dict(
        type='CosineAnnealingLR',
        T_max=8,
        begin=0,
        end=8,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
