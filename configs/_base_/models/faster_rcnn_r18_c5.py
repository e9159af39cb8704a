# Faster R-CNN on the last map of a ResNet-18 of half the usual width, small enough to train from
# scratch on a CPU. The map has a stride of 8, half of what the papers have, as the images are
# small: the last two stages are dilated instead. Every type is mmdet's.
_base_ = './faster_rcnn_r18_fpn.py'

model = dict(
    backbone=dict(
        base_channels=32,
        strides=(1, 2, 1, 1),
        dilations=(1, 1, 2, 4),
        out_indices=(3,),
    ),
    neck=dict(
        _delete_=True,
        type='ChannelMapper',
        in_channels=[256],
        kernel_size=1,
        out_channels=64,
        norm_cfg=dict(type='BN'),
    ),
    rpn_head=dict(anchor_generator=dict(scales=[2, 4, 8], strides=[8])),
    roi_head=dict(bbox_roi_extractor=dict(featmap_strides=[8])),
)
