# GFL with RFLA: anchors as receptive fields, of which each box gets the three nearest.
_base_ = 'gfl_batched_4e_bccd.py'

model = dict(
    train_cfg=dict(
        assigner=dict(_delete_=True, type='mmdet_ext.RFLAAssigner', receptive_fields=None),
    ),
)
