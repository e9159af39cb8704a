# Focal loss of gamma 2: an object weighs 0.25, the background 0.75.
_base_ = 'retinanet_cross_entropy_12e_bccd.py'

model = dict(
    bbox_head=dict(
        loss_cls=dict(
            _delete_=True,
            type='mmdet_ext.FocalLoss',
            use_sigmoid=True,
            gamma=2.0,
            alpha=0.25,
            loss_weight=1.0,
        ),
    ),
)
