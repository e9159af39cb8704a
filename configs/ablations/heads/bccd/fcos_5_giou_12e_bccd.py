# Step 5: GIoU in place of IoU.
_base_ = 'fcos_4_norm_on_bbox_12e_bccd.py'

model = dict(bbox_head=dict(loss_bbox=dict(_delete_=True, type='mmdet_ext.GIoULoss')))
