# GFL with RTMDet's rule: priors by the cost of what the head predicts, as many as fit.
_base_ = 'gfl_batched_4e_bccd.py'

model = dict(
    train_cfg=dict(
        assigner=dict(_delete_=True, type='mmdet_ext.DynamicSoftLabelAssigner', topk=13),
    ),
)
