# Feature pyramid under mmdet's Faster R-CNN: RoIs are pooled from the level of their size.
_base_ = [
    '../_base_/models/faster_rcnn_r18_fpn.py',
    '../_base_/datasets/shapes.py',
    '../_base_/schedules/adamw_12e.py',
    '../_base_/runtime.py',
]

model = dict(
    backbone=dict(base_channels=32),
    neck=dict(in_channels=[32, 64, 128, 256]),
    roi_head=dict(bbox_head=dict(num_classes=3)),
)
train_dataloader = dict(batch_size=4)
