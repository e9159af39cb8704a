# YOLOv5n on generated shapes. The anchors are those of `python tools/data/anchors.py
# data/shapes/annotations/instances_train.json --anchors 9 --clusters 6 9 --input 240 180
# --keep-ratio --out anchors.json`.
_base_ = [
    '../../_base_/models/yolov5_s.py',
    '../../_base_/datasets/shapes.py',
    '../../_base_/schedules/adamw_12e.py',
    '../../_base_/runtime.py',
]

model = dict(
    backbone=dict(width=0.25),
    neck=dict(in_channels=[64, 128, 256]),
    bbox_head=dict(
        num_classes=3,
        in_channels=[64, 128, 256],
        anchors=[
            [(10, 10), (15, 14), (20, 20)],
            [(27, 28), (37, 33), (44, 45)],
            [(70, 45), (54, 60), (76, 74)],
        ],
        image_size=240,
    ),
    test_cfg=dict(max_per_img=100),
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
