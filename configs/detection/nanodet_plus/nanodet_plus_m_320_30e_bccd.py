# NanoDet-Plus-m on BCCD from scratch, at 320 x 320 px: on two cores ten minutes, 1.6 times those of
# atss_r18_fpn_stock_12e_bccd.py. There is no guide, which takes half of a step or more: ATSS
# assigns in the first 8 epochs, and the predictions of the head itself decide later.
_base_ = [
    '../../_base_/models/nanodet_plus_m.py',
    '../../_base_/datasets/bccd.py',
    '../../_base_/schedules/adamw_12e.py',
    '../../_base_/runtime.py',
]

custom_imports = dict(
    imports=['mmdet_ext.compat', 'mmdet_ext.detection'], allow_failed_imports=False
)
max_epochs = 30
model = dict(
    backbone=dict(init_cfg=None),
    bbox_head=dict(num_classes=3),
    aux_head=None,
    train_cfg=dict(assigner=dict(_delete_=True, type='mmdet_ext.ATSSAssigner', topk=9)),
    test_cfg=dict(
        score_thr=0.01,
        nms=dict(
            _delete_=True,
            type='mmdet_ext.soft_nms',
            method='gaussian',
            iou_threshold=0.5,
            sigma=0.5,
            min_score=0.05,
        ),
    ),
)
train_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='mmdet_ext.WarpResize',
        scale=(320, 320),
        zoom=(0.8, 1.2),
        stretch=(0.9, 1.1),
        translate=0.1,
    ),
    # Cells have no upper side.
    dict(
        type='RandomFlip', prob=[0.25, 0.25, 0.25], direction=['horizontal', 'vertical', 'diagonal']
    ),
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
    tta_cfg=dict(
        nms=dict(
            type='mmdet_ext.soft_nms',
            method='gaussian',
            iou_threshold=0.5,
            sigma=0.5,
            min_score=0.05,
        ),
        max_per_img=100,
    ),
)
train_dataloader = dict(batch_size=4, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
train_cfg = dict(max_epochs=max_epochs, val_interval=5)
optim_wrapper = dict(optimizer=dict(lr=2e-3))
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
custom_hooks = [
    dict(type='NumClassCheckHook'),
    dict(
        type='mmdet_ext.AssignerSwitchHook',
        begin=8,
        assigner=dict(
            type='mmdet_ext.DynamicSoftLabelAssigner',
            soft_center_radius=None,
            topk=13,
            iou_weight=3.0,
        ),
    ),
    # Averaged weights, over the last hundred updates or so, are validated and tested.
    dict(
        type='EMAHook',
        ema_type='ExpMomentumEMA',
        momentum=0.01,
        gamma=100,
        update_buffers=True,
        priority=49,
    ),
]
