# YOLOv5n: cross-stage partial blocks, path aggregation, a loss balanced over the levels. Without
# mosaic, so that the leaves of this folder see the same images.
_base_ = '../detection/yolo/yolov5_n_24e_shapes.py'
