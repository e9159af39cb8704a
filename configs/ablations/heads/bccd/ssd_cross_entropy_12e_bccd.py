# Cross entropy over all anchors, without mining.
_base_ = 'ssd_ohem_12e_bccd.py'

model = dict(
    bbox_head=dict(
        loss_cls=dict(type='mmdet_ext.CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
    ),
)
