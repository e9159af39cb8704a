# Step 2: only points near the centre of a box are its positives.
_base_ = 'fcos_1_quality_on_reg_12e_bccd.py'

model = dict(bbox_head=dict(center_sampling=True, center_sample_radius=1.5))
