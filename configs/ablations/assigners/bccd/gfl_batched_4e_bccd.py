# The same rule, a batch at a time.
_base_ = 'gfl_stock_4e_bccd.py'

model = dict(
    bbox_head=dict(type='mmdet_ext.GFLHead'),
    train_cfg=dict(assigner=dict(type='mmdet_ext.ATSSAssigner')),
)
