# Our soft-label assigner, a batch at a time.
_base_ = './rtmdet_stock_4e_bccd.py'

model = dict(
    bbox_head=dict(type='mmdet_ext.RTMDetHead'),
    train_cfg=dict(assigner=dict(type='mmdet_ext.DynamicSoftLabelAssigner')),
)
