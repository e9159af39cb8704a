# YOLOv3 as in its paper: a prior is ignored by the IoU of its predicted box. The other configs of
# YOLOv3 change one part of its loss, those of YOLOv4 add one step each.
_base_ = 'yolov3_stock_12e_bccd.py'

model = dict(
    bbox_head=dict(type='mmdet_ext.YOLOV3Head'),
    train_cfg=dict(assigner=dict(_delete_=True, type='mmdet_ext.YOLOv3Assigner')),
)
