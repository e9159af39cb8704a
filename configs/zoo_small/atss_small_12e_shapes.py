# ATSS with mmdet's head and assigner: one anchor per place, and a threshold of IoU per object.
_base_ = [
    '../_base_/models/atss_r18_fpn.py',
    '../_base_/datasets/shapes.py',
    '../_base_/schedules/adamw_12e.py',
    '../_base_/runtime.py',
]

model = dict(
    backbone=dict(base_channels=32),
    neck=dict(in_channels=[32, 64, 128, 256]),
    bbox_head=dict(
        num_classes=3,
        anchor_generator=dict(octave_base_scale=4),
        loss_bbox=dict(type='GIoULoss'),
    ),
)
train_dataloader = dict(batch_size=4)
