# Beside the recipe: CIoU as the loss of boxes in place of GIoU.
_base_ = './recipe_5_flips_12e_bccd.py'

model = dict(bbox_head=dict(loss_bbox=dict(type='mmdet_ext.CIoULoss')))
