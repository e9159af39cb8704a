# The demo: our assigner and box loss on drawn shapes, a few minutes on two cores.
_base_ = [
    '../_base_/models/atss_r18_fpn.py',
    '../_base_/datasets/shapes.py',
    '../_base_/schedules/adamw_12e.py',
    '../_base_/runtime.py',
]

model = dict(
    bbox_head=dict(num_classes=3, loss_bbox=dict(type='mmdet_ext.CIoULoss')),
    train_cfg=dict(assigner=dict(type='mmdet_ext.ATSSAssigner')),
)
