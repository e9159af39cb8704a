# Softmax focal loss over all anchors, without mining.
_base_ = 'ssd_ohem_12e_bccd.py'

model = dict(
    bbox_head=dict(
        loss_cls=dict(
            type='mmdet_ext.FocalLoss', use_sigmoid=False, gamma=2.0, alpha=0.25, loss_weight=1.0
        ),
    ),
)
