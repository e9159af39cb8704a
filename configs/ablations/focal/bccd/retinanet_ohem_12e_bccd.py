# Cross entropy over positives and the three hardest negatives per positive.
_base_ = 'retinanet_cross_entropy_12e_bccd.py'

model = dict(
    bbox_head=dict(
        loss_cls=dict(
            _delete_=True,
            type='mmdet_ext.OHEMLoss',
            loss=dict(type='mmdet_ext.CrossEntropyLoss', use_sigmoid=True),
            use_sigmoid=True,
            negatives_per_positive=3.0,
            loss_weight=1.0,
        ),
    ),
)
