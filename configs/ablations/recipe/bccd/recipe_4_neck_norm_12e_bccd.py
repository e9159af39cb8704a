# Step 4: batch norm in the pyramid, as nothing is pretrained.
_base_ = './recipe_3_quality_head_12e_bccd.py'

model = dict(neck=dict(norm_cfg=dict(type='BN', requires_grad=True)))
