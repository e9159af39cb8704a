# Early stopping: at most 40 epochs; no more once mAP has not risen by 0.005 in three validations.
# The best checkpoint is kept beside the last ones.
_base_ = '../detection/atss/atss_r18_fpn_demo_shapes.py'

train_cfg = dict(max_epochs=40, val_interval=1)
default_hooks = dict(checkpoint=dict(save_best='coco/bbox_mAP', rule='greater'))
custom_hooks = [
    dict(type='NumClassCheckHook'),
    dict(
        type='EarlyStoppingHook',
        monitor='coco/bbox_mAP',
        rule='greater',
        min_delta=0.005,
        patience=3,
    ),
]
# A schedule whose end is not known: the rate falls when mAP does not rise.
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=30),
    dict(
        type='ReduceOnPlateauLR',
        monitor='coco/bbox_mAP',
        rule='greater',
        factor=0.3,
        patience=1,
        by_epoch=True,
    ),
]
