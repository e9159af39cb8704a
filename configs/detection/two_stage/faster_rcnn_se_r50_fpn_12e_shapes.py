# Faster R-CNN on an SE-ResNet: squeeze-and-excitation behind the third convolution of each block. A
# ResNet-50 of a quarter of the usual width, as mmdet's ResNet-18 takes no plugins.
_base_ = [
    '../../_base_/models/faster_rcnn_r18_fpn.py',
    '../../_base_/datasets/shapes.py',
    '../../_base_/schedules/adamw_12e.py',
    '../../_base_/runtime.py',
]

model = dict(
    backbone=dict(
        depth=50,
        base_channels=16,
        plugins=[
            dict(cfg=dict(type='mmdet_ext.SqueezeExcitation', ratio=16), position='after_conv3'),
        ],
    ),
    roi_head=dict(bbox_head=dict(num_classes=3)),
)
train_dataloader = dict(batch_size=4)
