# The small ATSS on COCO with our checks of the data. A batch has two images, so the learning rate
# of AdamW is lower.
_base_ = [
    '../../_base_/models/atss_r18_fpn.py',
    '../../_base_/datasets/coco.py',
    '../../_base_/schedules/adamw_12e.py',
    '../../_base_/runtime.py',
]

model = dict(
    bbox_head=dict(loss_bbox=dict(type='mmdet_ext.CIoULoss')),
    train_cfg=dict(assigner=dict(type='mmdet_ext.ATSSAssigner')),
)
optim_wrapper = dict(optimizer=dict(lr=2.5e-4))
