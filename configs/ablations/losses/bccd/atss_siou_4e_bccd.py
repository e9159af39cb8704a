# SIoU with mmdet's default neg_gamma=False, with which distance lowers the loss.
_base_ = 'atss_stock_4e_bccd.py'

model = dict(
    bbox_head=dict(
        loss_bbox=dict(_delete_=True, type='mmdet_ext.SIoULoss', loss_weight=2.0),
    ),
)
