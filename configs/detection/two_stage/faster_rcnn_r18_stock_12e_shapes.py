# Faster R-CNN: a proposal network on the map that the box head reads, in place of a search. Every
# type is mmdet's.
_base_ = [
    '../../_base_/models/faster_rcnn_r18_c5.py',
    '../../_base_/datasets/shapes.py',
    '../../_base_/schedules/adamw_12e.py',
    '../../_base_/runtime.py',
]

model = dict(roi_head=dict(bbox_head=dict(num_classes=3)))
train_dataloader = dict(batch_size=4)
