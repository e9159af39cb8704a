# Logit-adjusted softmax cross entropy with half the adjustment.
_base_ = 'faster_rcnn_stock_4e_bccd.py'

model = dict(
    roi_head=dict(
        bbox_head=dict(
            loss_cls=dict(
                _delete_=True,
                type='mmdet_ext.LogitAdjustedLoss',
                # Platelets, red cells and white cells of the training split.
                counts=[209, 2381, 214],
                tau=0.5,
                loss_weight=1.0,
            ),
        ),
    ),
)
