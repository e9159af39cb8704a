# Focal loss with positives weighted by 1 / log(1.10 + frequency) of their class.
_base_ = 'atss_stock_4e_bccd.py'

model = dict(
    bbox_head=dict(
        loss_cls=dict(
            _delete_=True,
            type='mmdet_ext.FocalLoss',
            use_sigmoid=True,
            gamma=2.0,
            # Platelets, red cells and white cells of the training split.
            alpha=dict(type='inverse_log', counts=[209, 2381, 214]),
            loss_weight=1.0,
        ),
    ),
)
