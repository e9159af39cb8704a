# FCOS before its improvements: the box loss of each positive counts alike. Each of the next configs
# adds one step to the one before.
_base_ = 'fcos_stock_12e_bccd.py'

model = dict(bbox_head=dict(type='mmdet_ext.FCOSHead', box_weight=None))
