# Step 1 from mmdet's ATSS to gfl_r18_fpn_12e_bccd.py: batches of 4 images in place of 8, which are
# twice the updates in as many epochs. Every step has what the steps before it have.
_base_ = '../../../detection/atss/atss_r18_fpn_12e_bccd.py'

train_dataloader = dict(batch_size=4)
train_cfg = dict(val_interval=4)
