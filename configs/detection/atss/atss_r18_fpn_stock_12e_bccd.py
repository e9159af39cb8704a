# The recipe of atss_r18_fpn_12e_bccd.py with mmdet's assigner and loss.
_base_ = [
    '../../_base_/models/atss_r18_fpn.py',
    '../../_base_/datasets/bccd.py',
    '../../_base_/schedules/adamw_12e.py',
    '../../_base_/runtime.py',
]

model = dict(bbox_head=dict(num_classes=3))
