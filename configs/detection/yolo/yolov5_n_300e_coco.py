# YOLOv5n: half the channels of YOLOv5s.
_base_ = 'yolov5_s_300e_coco.py'

model = dict(
    backbone=dict(width=0.25),
    neck=dict(in_channels=[64, 128, 256]),
    bbox_head=dict(in_channels=[64, 128, 256]),
)
