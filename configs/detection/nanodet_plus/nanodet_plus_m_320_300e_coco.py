# NanoDet-Plus-m as published, on COCO at 320 x 320 px. `python tools/train/convert_checkpoint.py
# nanodet nanodet-plus-m_320.ckpt nanodet_plus_m_320.pth` converts the published weights, which
# `mim test` and `load_from` read then. `mim test --tta` adds mirror images.
_base_ = [
    '../../_base_/models/nanodet_plus_m.py',
    '../../_base_/datasets/coco.py',
    '../../_base_/schedules/nanodet_plus_300e.py',
    '../../_base_/runtime.py',
]

train_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='mmdet_ext.WarpResize',
        scale=(320, 320),
        zoom=(0.6, 1.4),
        stretch=(0.8, 1.2),
        translate=0.2,
    ),
    dict(type='RandomFlip', prob=0.5),
    dict(type='Brightness', prob=0.5, min_mag=0.8, max_mag=1.2),
    dict(type='Contrast', prob=0.5, min_mag=0.6, max_mag=1.4),
    dict(type='Color', prob=0.5, min_mag=0.5, max_mag=1.2),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='mmdet_ext.WarpResize', scale=(320, 320)),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
tta_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='mmdet_ext.WarpResize', scale=(320, 320))],
            [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)],
            [dict(type='LoadAnnotations', with_bbox=True)],
            [
                dict(
                    type='PackDetInputs',
                    meta_keys=(
                        'img_id',
                        'img_path',
                        'ori_shape',
                        'img_shape',
                        'scale_factor',
                        'flip',
                        'flip_direction',
                    ),
                )
            ],
        ],
    ),
]
tta_model = dict(
    type='DetTTAModel',
    tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.6), max_per_img=100),
)
train_dataloader = dict(batch_size=96, num_workers=10, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
# Averaged weights, of all modules and buffers, which are validated and tested.
custom_hooks = [
    dict(type='NumClassCheckHook'),
    dict(type='EMAHook', ema_type='ExpMomentumEMA', momentum=0.0002, update_buffers=True),
]
