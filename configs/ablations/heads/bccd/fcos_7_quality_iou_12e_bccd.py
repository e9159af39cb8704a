# Step 7: the quality is the IoU of the predicted box, in place of the centerness.
_base_ = 'fcos_6_ciou_12e_bccd.py'

model = dict(bbox_head=dict(quality='iou'))
