# Joints by heatmaps, people by tags: a small bottom-up network on stick figures.
#     python tools/make_stick_figures.py data/stick_figures
#     mim train mmpose configs/pose/associative_embedding_small_stick_figures.py
_base_ = [
    '../_base_/models/bottomup_small.py',
    '../_base_/datasets/stick_figures.py',
    '../_base_/schedules/adam_10e_pose.py',
    '../_base_/pose_runtime.py',
]

codec = dict(
    type='mmdet_ext.AssociativeEmbeddingCodec',
    input_size=(192, 192),
    heatmap_size=(48, 48),
    sigma=1.5,
    use_udp=True,
    # Head and trunk first.
    decode_keypoint_order=[0, 1, 2, 3, 4, 5, 6, 11, 12, 7, 8, 9, 10, 13, 14, 15, 16],
    decode_topk=10,
    decode_max_instances=10,
)
# No RandomFlip: the colours of a figure tell its left side from its right one.
train_pipeline = [
    dict(type='LoadImage'),
    dict(
        type='BottomupRandomAffine',
        input_size=codec['input_size'],
        shift_factor=0.1,
        rotate_factor=20,
        scale_factor=(0.8, 1.25),
    ),
    dict(type='GenerateTarget', encoder=codec),
    dict(type='BottomupGetHeatmapMask'),
    dict(type='PackPoseInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

model = dict(
    head=dict(
        type='AssociativeEmbeddingHead',
        in_channels=112,
        num_keypoints=17,
        tag_dim=1,
        tag_per_keypoint=True,
        deconv_out_channels=None,
        conv_out_channels=(32, 32),
        conv_kernel_sizes=(1, 3),
        keypoint_loss=dict(type='mmdet_ext.KeypointHeatmapLoss'),
        # MMPose's weights, 0.001 and 0.5, let the pull win: all tags become equal, where the push
        # has no slope. Larger ones drown the heatmaps, whose loss is small.
        tag_loss=dict(
            type='mmdet_ext.AssociativeEmbeddingLoss', loss_weight=0.0002, push_loss_factor=3.0
        ),
        decoder=codec,
        # MMPose's 0.001 makes all tags nearly equal at first; 0.05 makes noise of the heatmaps.
        init_cfg=[
            dict(type='Normal', layer=['Conv2d', 'ConvTranspose2d'], std=0.01),
            dict(type='Constant', layer='BatchNorm2d', val=1),
        ],
    ),
)
