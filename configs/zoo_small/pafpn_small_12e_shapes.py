# Path aggregation: mmdet's PAFPN adds a bottom-up path to the pyramid. All else is as in FPN.
_base_ = './fpn_small_12e_shapes.py'

model = dict(neck=dict(type='PAFPN'))
