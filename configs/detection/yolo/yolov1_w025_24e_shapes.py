# YOLOv1 on generated shapes. Images are resized to 448 x 448 without their ratio, as in the paper,
# so that the map is 7 x 7.
_base_ = [
    '../../_base_/models/yolov1.py',
    '../../_base_/datasets/shapes.py',
    '../../_base_/schedules/adamw_12e.py',
    '../../_base_/runtime.py',
]

model = dict(bbox_head=dict(num_classes=3))
train_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(448, 448), keep_ratio=False),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='Resize', scale=(448, 448), keep_ratio=False),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
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
