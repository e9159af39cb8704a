# Step 3: the box loss of a positive is weighted by its centerness.
_base_ = 'fcos_2_center_sampling_12e_bccd.py'

model = dict(bbox_head=dict(box_weight='quality'))
