# NanoDet-Plus-m as published, for 80 classes. The images are BGR. aux_head guides the assignment in
# training and is not computed in a test; aux_head=None leaves it out.
model = dict(
    type='mmdet_ext.NanoDetPlus',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[103.53, 116.28, 123.675],
        std=[57.375, 57.12, 58.395],
        bgr_to_rgb=False,
        pad_size_divisor=32,
    ),
    backbone=dict(
        type='mmdet_ext.ShuffleNetV2Backbone',
        widen_factor=1.0,
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://shufflenetv2_x1.0'),
    ),
    neck=dict(type='mmdet_ext.GhostPAN', in_channels=[116, 232, 464], out_channels=96),
    bbox_head=dict(
        type='mmdet_ext.NanoDetPlusHead',
        num_classes=80,
        in_channels=96,
        feat_channels=96,
        strides=[8, 16, 32, 64],
        reg_max=7,
        loss_cls=dict(type='mmdet_ext.QualityFocalLoss', use_sigmoid=True, beta=2.0),
        loss_bbox=dict(type='mmdet_ext.GIoULoss', loss_weight=2.0),
        loss_dfl=dict(type='mmdet_ext.DistributionFocalLoss', loss_weight=0.25),
    ),
    aux_head=dict(
        type='mmdet_ext.GFLHead',
        num_classes=80,
        in_channels=192,
        feat_channels=192,
        stacked_convs=4,
        act_cfg=dict(type='LeakyReLU', negative_slope=0.1),
        anchor_generator=dict(
            type='AnchorGenerator',
            ratios=[1.0],
            octave_base_scale=5,
            scales_per_octave=1,
            strides=[8, 16, 32, 64],
            center_offset=0.0,
        ),
        reg_max=7,
    ),
    detach_epoch=10,
    train_cfg=dict(
        assigner=dict(
            type='mmdet_ext.DynamicSoftLabelAssigner',
            soft_center_radius=None,
            topk=13,
            iou_weight=3.0,
        ),
        allowed_border=-1,
        pos_weight=-1,
    ),
    # nms_pre is above the number of priors times classes: every score above the threshold counts.
    test_cfg=dict(
        nms_pre=1_000_000,
        score_thr=0.05,
        nms=dict(type='nms', iou_threshold=0.6),
        max_per_img=100,
    ),
)
