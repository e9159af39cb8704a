# YOLOv3's network with YOLOv4's positives: every anchor of a similar shape.
_base_ = 'mmdet::yolo/yolov3_mobilenetv2_8xb24-320-300e_coco.py'

model = dict(
    bbox_head=dict(type='mmdet_ext.YOLOV3Head'),
    train_cfg=dict(assigner=dict(_delete_=True, type='mmdet_ext.YOLOv4Assigner')),
)
