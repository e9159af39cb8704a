# YOLOv5n on BCCD at 320 x 240 px, from scratch on a CPU. The anchors are those of `python
# tools/data/anchors.py data/bccd/annotations/instances_train.json --anchors 9 --clusters 6 9
# --input 320 240 --keep-ratio --out anchors.json`.
_base_ = [
    '../../_base_/models/yolov5_s.py',
    '../../_base_/datasets/bccd.py',
    '../../_base_/schedules/adamw_12e.py',
    '../../_base_/runtime.py',
]

max_epochs = 30
model = dict(
    backbone=dict(width=0.25),
    neck=dict(in_channels=[64, 128, 256]),
    bbox_head=dict(
        num_classes=3,
        in_channels=[64, 128, 256],
        anchors=[
            [(17, 17), (23, 22), (40, 44)],
            [(55, 37), (50, 47), (47, 58)],
            [(58, 52), (64, 62), (108, 98)],
        ],
        image_size=320,
        # Three classes have 3/80 of the weight of 80: too little to tell platelets in 12 epochs.
        loss_cls=dict(loss_weight=5.0),
    ),
    test_cfg=dict(max_per_img=100),
)
train_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(320, 240), keep_ratio=True),
    dict(
        type='RandomAffine',
        max_rotate_degree=0.0,
        max_translate_ratio=0.1,
        scaling_ratio_range=(0.7, 1.3),
        max_shear_degree=0.0,
    ),
    dict(type='YOLOXHSVRandomAug'),
    # Cells have no upper side.
    dict(
        type='RandomFlip', prob=[0.25, 0.25, 0.25], direction=['horizontal', 'vertical', 'diagonal']
    ),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(batch_size=4, dataset=dict(pipeline=train_pipeline))
train_cfg = dict(max_epochs=max_epochs, val_interval=5)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=30),
    dict(
        type='CosineAnnealingLR',
        T_max=max_epochs,
        begin=0,
        end=max_epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
tta_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='Resize', scale=(320, 240), keep_ratio=True)],
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
    tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.65), max_per_img=100),
)
optim_wrapper = dict(optimizer=dict(lr=2e-3))
# Averaged weights, of all modules and buffers, which are validated and tested.
custom_hooks = [
    dict(type='NumClassCheckHook'),
    dict(
        type='EMAHook',
        ema_type='ExpMomentumEMA',
        momentum=2e-3,
        gamma=50,
        update_buffers=True,
        priority=49,
    ),
]
