# EfficientDet-D0 with one stage of BiFPN, and one convolution per branch of the head.
_base_ = '../detection/efficientdet/efficientdet_d0_12e_shapes.py'

model = dict(neck=dict(num_stages=1), bbox_head=dict(stacked_convs=1))
