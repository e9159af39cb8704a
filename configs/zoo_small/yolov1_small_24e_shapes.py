# YOLOv1: two boxes and one class per cell of a 7 x 7 grid.
_base_ = '../detection/yolo/yolov1_w025_24e_shapes.py'
