# ATSS by the Wasserstein distance instead of the overlap.
_base_ = 'gfl_batched_4e_bccd.py'

model = dict(
    train_cfg=dict(
        assigner=dict(iou_calculator=dict(type='mmdet_ext.NWDCalculator', constant=32.0)),
    ),
)
