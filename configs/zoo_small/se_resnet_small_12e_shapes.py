# SE-ResNet: squeeze-and-excitation in each block of the backbone of a Faster R-CNN.
_base_ = '../detection/two_stage/faster_rcnn_se_r50_fpn_12e_shapes.py'
