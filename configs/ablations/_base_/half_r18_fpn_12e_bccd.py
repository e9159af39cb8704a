# What the comparisons of heads share: a ResNet-18 of half the usual width from scratch, images of
# 320 x 240 px in batches of 4, and 12 epochs, 624 updates. In batches of 8 and four epochs, 104
# updates, no detector learns the platelets.
_base_ = [
    '../../_base_/models/single_stage_r18_fpn.py',
    '../../_base_/datasets/bccd.py',
    '../../_base_/schedules/adamw_12e.py',
    '../../_base_/runtime.py',
]

train_dataloader = dict(batch_size=4)
train_cfg = dict(val_interval=4)
