# R-CNN: a warped crop per proposal.
_base_ = '../detection/two_stage/rcnn_r18_12e_shapes.py'
