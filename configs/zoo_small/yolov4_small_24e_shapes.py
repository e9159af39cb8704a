# YOLOv4: CSPDarknet53, pooling pyramid and path aggregation.
_base_ = '../detection/yolo/yolov4_w025_24e_shapes.py'
