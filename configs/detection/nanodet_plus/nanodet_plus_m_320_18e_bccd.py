# NanoDet-Plus-m on BCCD from scratch in no more time than 12 epochs of
# atss_r18_fpn_stock_12e_bccd.py: 18 epochs instead of the 30 of the longer schedule, and ATSS
# assigns in the first 6.
_base_ = ['./nanodet_plus_m_320_30e_bccd.py']

max_epochs = 18
train_cfg = dict(max_epochs=max_epochs, val_interval=6)
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
        begin=6,
        assigner=dict(
            type='mmdet_ext.DynamicSoftLabelAssigner',
            soft_center_radius=None,
            topk=13,
            iou_weight=3.0,
        ),
    ),
    dict(
        type='EMAHook',
        ema_type='ExpMomentumEMA',
        momentum=0.01,
        gamma=100,
        update_buffers=True,
        priority=49,
    ),
]
