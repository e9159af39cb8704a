# GFL with the batched ATSS: the same rule, for all images of a batch at once.
_base_ = 'gfl_stock_4e_bccd.py'

model = dict(
    bbox_head=dict(type='mmdet_ext.GFLHead'),
    train_cfg=dict(assigner=dict(type='mmdet_ext.ATSSAssigner')),
)
