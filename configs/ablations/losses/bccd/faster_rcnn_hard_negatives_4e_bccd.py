# The RPN learns from the hardest negative anchors, not from random ones.
_base_ = 'faster_rcnn_stock_4e_bccd.py'

model = dict(
    train_cfg=dict(
        rpn=dict(
            sampler=dict(
                _delete_=True, type='mmdet_ext.HardNegativeSampler', num=256, pos_fraction=0.5
            ),
        ),
    ),
)
