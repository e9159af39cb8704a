# ATSS on BCCD with our assigner and box loss, the two lines that differ from
# atss_r18_fpn_stock_12e_bccd.py.
_base_ = 'atss_r18_fpn_stock_12e_bccd.py'

model = dict(
    bbox_head=dict(loss_bbox=dict(type='mmdet_ext.CIoULoss')),
    train_cfg=dict(assigner=dict(type='mmdet_ext.ATSSAssigner')),
)
