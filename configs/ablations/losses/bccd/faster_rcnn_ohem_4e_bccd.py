# The second stage learns from its positives and the three hardest negatives per positive.
_base_ = 'faster_rcnn_stock_4e_bccd.py'

model = dict(
    roi_head=dict(
        bbox_head=dict(
            loss_cls=dict(
                _delete_=True,
                type='mmdet_ext.OHEMLoss',
                loss=dict(type='mmdet_ext.CrossEntropyLoss', use_sigmoid=False),
                negatives_per_positive=3.0,
                loss_weight=1.0,
            ),
        ),
    ),
)
