# YOLOv4, step 1: a box takes all anchors of a similar shape.
_base_ = 'yolov3_ignore_by_prediction_12e_bccd.py'

model = dict(train_cfg=dict(assigner=dict(type='mmdet_ext.YOLOv4Assigner')))
