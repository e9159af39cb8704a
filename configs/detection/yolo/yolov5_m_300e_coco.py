# YOLOv5m, with the larger models' weights of the loss, their range of scales and final rate.
_base_ = 'yolov5_s_300e_coco.py'

model = dict(
    backbone=dict(depth=0.67, width=0.75),
    neck=dict(in_channels=[192, 384, 768], depth=0.67),
    bbox_head=dict(
        in_channels=[192, 384, 768],
        loss_cls=dict(loss_weight=0.3),
        loss_obj=dict(loss_weight=0.7),
    ),
)
mosaic_pipeline = [
    dict(type='Mosaic', img_scale=(640, 640), pad_val=114.0),
    dict(
        type='RandomAffine',
        max_rotate_degree=0.0,
        max_translate_ratio=0.1,
        scaling_ratio_range=(0.1, 1.9),
        max_shear_degree=0.0,
        border=(-320, -320),
    ),
    dict(type='YOLOXHSVRandomAug'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=mosaic_pipeline))
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-4,
        by_epoch=True,
        begin=0,
        end=3,
        convert_to_iter_based=True,
    ),
    dict(
        type='LinearMomentum',
        start_factor=0.8 / 0.937,
        by_epoch=True,
        begin=0,
        end=3,
        convert_to_iter_based=True,
    ),
    dict(type='LinearLR', start_factor=1.0, end_factor=0.1, by_epoch=True, begin=3, end=300),
]
