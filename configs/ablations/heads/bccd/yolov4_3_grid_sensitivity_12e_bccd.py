# YOLOv4, step 3: centres reach beyond their cells.
_base_ = 'yolov4_2_label_smoothing_12e_bccd.py'

model = dict(bbox_head=dict(scale_x_y=[1.05, 1.1, 1.2]))
