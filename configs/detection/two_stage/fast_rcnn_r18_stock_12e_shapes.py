# Fast R-CNN: one 7 x 7 grid per proposal by RoIAlign, in place of SPPNet's pyramid, and all layers
# trained with one loss. Every type is mmdet's.
_base_ = [
    '../../_base_/models/fast_rcnn_r18_c5.py',
    '../../_base_/datasets/shapes_proposals.py',
    '../../_base_/schedules/adamw_12e.py',
    '../../_base_/runtime.py',
]

model = dict(roi_head=dict(bbox_head=dict(num_classes=3)))
train_dataloader = dict(batch_size=4)
