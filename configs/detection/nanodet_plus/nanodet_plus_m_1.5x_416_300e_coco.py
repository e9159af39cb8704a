# NanoDet-Plus-m-1.5x as published, on COCO at 416 x 416 px: the backbone is 1.5 times as wide.
_base_ = 'nanodet_plus_m_416_300e_coco.py'

model = dict(
    backbone=dict(
        widen_factor=1.5,
        init_cfg=dict(checkpoint='torchvision://shufflenet_v2_x1_5.imagenet1k_v1'),
    ),
    neck=dict(in_channels=[176, 352, 704], out_channels=128),
    bbox_head=dict(in_channels=128, feat_channels=128),
    aux_head=dict(in_channels=256, feat_channels=256),
)
