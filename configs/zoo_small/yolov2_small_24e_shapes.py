# YOLOv2: five anchors per cell, from k-means.
_base_ = '../detection/yolo/yolov2_w025_24e_shapes.py'
