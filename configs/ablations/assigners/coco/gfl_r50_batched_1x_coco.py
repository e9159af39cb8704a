# GFL with the targets of a batch computed at once.
_base_ = 'mmdet::gfl/gfl_r50_fpn_1x_coco.py'

model = dict(
    bbox_head=dict(type='mmdet_ext.GFLHead'),
    train_cfg=dict(assigner=dict(type='mmdet_ext.ATSSAssigner')),
)
