# CIoU over inner boxes.
_base_ = 'atss_stock_4e_bccd.py'

model = dict(
    bbox_head=dict(
        loss_bbox=dict(_delete_=True, type='mmdet_ext.CIoULoss', inner_ratio=0.8, loss_weight=2.0),
    ),
)
