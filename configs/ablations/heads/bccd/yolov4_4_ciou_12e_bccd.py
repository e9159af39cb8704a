# YOLOv4, step 4: CIoU of the decoded boxes in place of the terms of their offsets.
_base_ = 'yolov4_3_grid_sensitivity_12e_bccd.py'

model = dict(
    bbox_head=dict(loss_bbox=dict(type='mmdet_ext.CIoULoss', loss_weight=2.0, reduction='sum')),
)
