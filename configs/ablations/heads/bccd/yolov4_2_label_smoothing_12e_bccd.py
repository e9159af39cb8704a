# YOLOv4, step 2: labels are smoothed.
_base_ = 'yolov4_1_several_anchors_12e_bccd.py'

model = dict(bbox_head=dict(one_hot_smoother=0.1))
