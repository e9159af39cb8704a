# Cross entropy over all anchors: an object weighs 0.75, the background 0.25.
_base_ = 'ssd_ohem_12e_bccd.py'

model = dict(
    bbox_head=dict(
        loss_cls=dict(
            type='mmdet_ext.FocalLoss', use_sigmoid=False, gamma=0.0, alpha=0.75, loss_weight=1.0
        ),
    ),
)
