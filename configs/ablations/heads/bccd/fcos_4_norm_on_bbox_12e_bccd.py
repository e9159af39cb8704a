# Step 4: distances are predicted in strides of the level.
_base_ = 'fcos_3_box_weight_12e_bccd.py'

model = dict(bbox_head=dict(norm_on_bbox=True))
