# YOLOv5l: YOLOv5m with all blocks and channels.
_base_ = 'yolov5_m_300e_coco.py'

model = dict(
    backbone=dict(depth=1.0, width=1.0),
    neck=dict(in_channels=[256, 512, 1024], depth=1.0),
    bbox_head=dict(in_channels=[256, 512, 1024]),
)
