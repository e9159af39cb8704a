# Step 1: the centerness is predicted on the branch of the boxes.
_base_ = 'fcos_0_equal_weights_12e_bccd.py'

model = dict(bbox_head=dict(centerness_on_reg=True))
