# The first row of the comparison of assigners: stock's head and soft-label assigner, four epochs.
_base_ = [
    '../../_base_/models/rtmdet_r18_fpn.py',
    '../../_base_/datasets/bccd.py',
    '../../_base_/schedules/adamw_4e.py',
    '../../_base_/runtime.py',
]

model = dict(bbox_head=dict(num_classes=3))
