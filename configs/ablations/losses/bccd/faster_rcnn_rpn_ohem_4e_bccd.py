# The RPN learns from positives and the three hardest negatives per positive, not from a sample.
_base_ = 'faster_rcnn_stock_4e_bccd.py'

model = dict(
    rpn_head=dict(
        loss_cls=dict(
            _delete_=True,
            type='mmdet_ext.OHEMLoss',
            loss=dict(type='mmdet_ext.CrossEntropyLoss', use_sigmoid=True),
            use_sigmoid=True,
            negatives_per_positive=3.0,
            min_negatives=16,
            loss_weight=1.0,
        ),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(_delete_=True, type='PseudoSampler')),
    ),
)
