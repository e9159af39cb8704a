# ATSS's network with anchors ranked as receptive fields.
_base_ = './atss_batched_4e_bccd.py'

model = dict(
    train_cfg=dict(
        assigner=dict(_delete_=True, type='mmdet_ext.RFLAAssigner', receptive_fields=None),
    ),
)
