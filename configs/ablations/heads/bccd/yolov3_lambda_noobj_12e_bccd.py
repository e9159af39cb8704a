# YOLOv3 with half the weight on the objectness of the background.
_base_ = 'yolov3_ignore_by_prediction_12e_bccd.py'

model = dict(bbox_head=dict(lambda_noobj=0.5))
