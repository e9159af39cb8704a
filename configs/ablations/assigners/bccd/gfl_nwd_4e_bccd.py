# GFL with ATSS that uses the Wasserstein distance instead of the IoU.
_base_ = 'gfl_batched_4e_bccd.py'

model = dict(
    train_cfg=dict(
        assigner=dict(iou_calculator=dict(type='mmdet_ext.NWDCalculator', constant=32.0)),
    ),
)
