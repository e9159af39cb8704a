# Equalised focal loss, with gradient ratios from each batch.
_base_ = 'atss_stock_4e_bccd.py'

model = dict(
    bbox_head=dict(
        loss_cls=dict(
            _delete_=True,
            type='mmdet_ext.EqualizedFocalLoss',
            use_sigmoid=True,
            loss_weight=1.0,
        ),
    ),
)
