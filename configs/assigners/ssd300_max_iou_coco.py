# SSD with our assigner in stock's head.
_base_ = 'mmdet::ssd/ssd300_coco.py'

model = dict(train_cfg=dict(assigner=dict(type='mmdet_ext.MaxIoUAssigner')))
