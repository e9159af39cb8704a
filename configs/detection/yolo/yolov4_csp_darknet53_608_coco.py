# YOLOv4 as published, on COCO at 608 x 608 px. `python tools/train/convert_checkpoint.py darknet
# configs/detection/yolo/yolov4_csp_darknet53_608_coco.py yolov4.weights yolov4.pth` converts the
# published weights, which `mim test` and `load_from` read then.
_base_ = [
    '../../_base_/models/yolov4.py',
    '../../_base_/datasets/coco.py',
    '../../_base_/schedules/adamw_12e.py',
    '../../_base_/runtime.py',
]

train_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(608, 608), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='Resize', scale=(608, 608), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
train_dataloader = dict(batch_size=8, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
