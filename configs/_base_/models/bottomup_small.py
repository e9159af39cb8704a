# Three stages of a ResNet-18 with a quarter of its channels, joined at stride 4: small enough to
# train from scratch on a CPU. Every type is MMPose's. A leaf config sets the head.
model = dict(
    type='BottomupPoseEstimator',
    data_preprocessor=dict(
        type='PoseDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
    ),
    backbone=dict(
        type='ResNet',
        depth=18,
        stem_channels=16,
        base_channels=16,
        num_stages=3,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(0, 1, 2),
        norm_cfg=dict(type='BN', requires_grad=True),
    ),
    # 16 + 32 + 64 channels.
    neck=dict(type='FeatureMapProcessor', concat=True),
    test_cfg=dict(flip_test=False, restore_heatmap_size=False),
)
