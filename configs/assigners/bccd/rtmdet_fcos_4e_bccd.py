# FCOS's assignment: all points in a box that are of its size.
_base_ = './rtmdet_soft_label_4e_bccd.py'

model = dict(
    train_cfg=dict(assigner=dict(_delete_=True, type='mmdet_ext.FCOSAssigner')),
)
