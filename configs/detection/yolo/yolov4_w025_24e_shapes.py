# YOLOv4 with a quarter of its channels on generated shapes. The nine anchors are those of
# tools/data/anchors.py.
_base_ = [
    '../../_base_/models/yolov4.py',
    '../../_base_/datasets/shapes.py',
    '../../_base_/schedules/adamw_12e.py',
    '../../_base_/runtime.py',
]

model = dict(
    backbone=dict(width=0.25),
    neck=dict(in_channels=[64, 128, 256]),
    bbox_head=dict(
        num_classes=3,
        in_channels=[128, 64, 32],
        out_channels=[256, 128, 64],
        anchor_generator=dict(
            base_sizes=[
                [(70, 45), (54, 60), (76, 74)],
                [(27, 28), (37, 33), (44, 45)],
                [(10, 10), (15, 14), (20, 20)],
            ],
        ),
    ),
)
train_cfg = dict(max_epochs=24, val_interval=4)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=30),
    dict(
        type='CosineAnnealingLR',
        T_max=24,
        begin=0,
        end=24,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
