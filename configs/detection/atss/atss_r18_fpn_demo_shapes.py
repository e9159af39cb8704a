# The demo: our assigner and box loss on generated shapes, a few minutes on two cores. Batches are
# small, for many steps, and anchors half as large as usual, because most shapes are small.
_base_ = [
    '../../_base_/models/atss_r18_fpn.py',
    '../../_base_/datasets/shapes.py',
    '../../_base_/schedules/adamw_12e.py',
    '../../_base_/runtime.py',
]

model = dict(
    bbox_head=dict(
        num_classes=3,
        anchor_generator=dict(octave_base_scale=4),
        loss_bbox=dict(type='mmdet_ext.CIoULoss'),
    ),
    train_cfg=dict(assigner=dict(type='mmdet_ext.ATSSAssigner')),
)
train_dataloader = dict(batch_size=4)
train_cfg = dict(max_epochs=10, val_interval=2)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=30),
    dict(
        type='CosineAnnealingLR',
        T_max=10,
        begin=0,
        end=10,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
