# Anchors as receptive fields, the three nearest to each box.
_base_ = 'gfl_batched_4e_bccd.py'

model = dict(
    train_cfg=dict(
        assigner=dict(_delete_=True, type='mmdet_ext.RFLAAssigner', receptive_fields=None),
    ),
)
