# What the comparisons on shapes share: ATSS on a ResNet-18 of half the usual width from scratch,
# images of 240 x 180 px in batches of 8, and 8 epochs. Anchors are half as large as usual, because
# most shapes are small.
_base_ = [
    '../../_base_/models/atss_r18_fpn.py',
    '../../_base_/datasets/shapes.py',
    '../../_base_/schedules/adamw_12e.py',
    '../../_base_/runtime.py',
]

model = dict(
    backbone=dict(base_channels=32),
    neck=dict(in_channels=[32, 64, 128, 256]),
    bbox_head=dict(
        type='mmdet_ext.ATSSHead',
        num_classes=3,
        anchor_generator=dict(octave_base_scale=4),
        loss_cls=dict(type='mmdet_ext.FocalLoss'),
        loss_bbox=dict(type='mmdet_ext.GIoULoss'),
        loss_centerness=dict(type='mmdet_ext.CrossEntropyLoss'),
    ),
    train_cfg=dict(assigner=dict(type='mmdet_ext.ATSSAssigner')),
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
