# The first row of the two-stage comparison: Faster R-CNN with mmdet's losses, four epochs.
_base_ = [
    '../../../_base_/models/faster_rcnn_r18_fpn.py',
    '../../../_base_/datasets/bccd.py',
    '../../../_base_/schedules/adamw_4e.py',
    '../../../_base_/runtime.py',
]

model = dict(roi_head=dict(bbox_head=dict(num_classes=3)))
