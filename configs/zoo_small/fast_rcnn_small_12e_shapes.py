# Fast R-CNN with mmdet's head: proposals from files, RoIs pooled from the map of the image.
_base_ = [
    '../_base_/models/fast_rcnn_r18_c5.py',
    '../_base_/datasets/shapes_proposals.py',
    '../_base_/schedules/adamw_12e.py',
    '../_base_/runtime.py',
]

model = dict(roi_head=dict(bbox_head=dict(num_classes=3)))
train_dataloader = dict(batch_size=4)
