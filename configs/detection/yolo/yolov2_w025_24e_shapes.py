# YOLOv2 on generated shapes, padded from 240 x 180 to 256 x 192 px: 8 x 6 cells. The anchors are
# those of `python tools/data/anchors.py data/shapes/annotations/instances_train.json
# --input 240 180 --keep-ratio --out anchors.json`.
_base_ = [
    '../../_base_/models/yolov2.py',
    '../../_base_/datasets/shapes.py',
    '../../_base_/schedules/adamw_12e.py',
    '../../_base_/runtime.py',
]

model = dict(
    bbox_head=dict(
        num_classes=3,
        anchors=[(0.34, 0.33), (0.59, 0.58), (0.98, 0.96), (1.52, 1.48), (2.21, 2.16)],
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
