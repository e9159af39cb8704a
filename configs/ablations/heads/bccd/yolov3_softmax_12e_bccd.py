# YOLOv3 with classes that exclude each other: cross entropy over the softmax.
_base_ = 'yolov3_ignore_by_prediction_12e_bccd.py'

model = dict(bbox_head=dict(loss_cls=dict(use_sigmoid=False)))
