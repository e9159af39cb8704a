# The RPN learns from all anchors with focal loss, not from a sample.
_base_ = 'faster_rcnn_stock_4e_bccd.py'

model = dict(
    rpn_head=dict(
        loss_cls=dict(
            _delete_=True,
            type='mmdet_ext.FocalLoss',
            use_sigmoid=True,
            gamma=2.0,
            alpha=0.25,
            loss_weight=1.0,
        ),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(_delete_=True, type='PseudoSampler')),
    ),
)
