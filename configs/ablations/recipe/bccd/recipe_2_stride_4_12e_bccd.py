# Step 2: levels of stride 4 to 64 in place of 8 to 128. The anchors of the finest level have 32 px
# in place of 64, and the platelets 20.
_base_ = './recipe_1_batch_4_12e_bccd.py'

model = dict(
    neck=dict(start_level=0),
    bbox_head=dict(anchor_generator=dict(strides=[4, 8, 16, 32, 64])),
)
