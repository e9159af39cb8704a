# Step 6: CIoU in place of GIoU.
_base_ = 'fcos_5_giou_12e_bccd.py'

model = dict(bbox_head=dict(loss_bbox=dict(_delete_=True, type='mmdet_ext.CIoULoss')))
