# The first row of the comparison: ATSS with mmdet's losses, four epochs.
_base_ = [
    '../../../_base_/models/atss_r18_fpn.py',
    '../../../_base_/datasets/bccd.py',
    '../../../_base_/schedules/adamw_4e.py',
    '../../../_base_/runtime.py',
]

model = dict(bbox_head=dict(num_classes=3))
