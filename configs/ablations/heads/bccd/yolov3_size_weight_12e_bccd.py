# YOLOv3 with the factor 2 - w h on the terms of place and size.
_base_ = 'yolov3_ignore_by_prediction_12e_bccd.py'

model = dict(bbox_head=dict(size_weight=True))
