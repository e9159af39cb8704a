# Logit-adjusted cross entropy, in its sigmoid form.
_base_ = 'atss_stock_4e_bccd.py'

model = dict(
    bbox_head=dict(
        loss_cls=dict(
            _delete_=True,
            type='mmdet_ext.LogitAdjustedLoss',
            use_sigmoid=True,
            # Platelets, red cells and white cells of the training split.
            counts=[209, 2381, 214],
            loss_weight=1.0,
        ),
    ),
)
