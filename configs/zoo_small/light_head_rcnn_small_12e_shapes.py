# Light-Head R-CNN: thin maps and one fully connected layer per RoI.
_base_ = '../detection/two_stage/light_head_rcnn_r18_12e_shapes.py'
