# Joints by heatmaps, people by part affinity fields: the network of
# associative_embedding_small_stick_figures.py with fields of limbs instead of tags.
#     python tools/make_stick_figures.py data/stick_figures
#     mim train mmpose configs/pose/part_affinity_field_small_stick_figures.py
_base_ = [
    '../_base_/models/bottomup_small.py',
    '../_base_/datasets/stick_figures.py',
    '../_base_/schedules/adam_10e_pose.py',
    '../_base_/pose_runtime.py',
]

codec = dict(
    type='mmdet_ext.PartAffinityField',
    input_size=(192, 192),
    heatmap_size=(48, 48),
    sigma=1.5,
    limbs='coco',
    decode_topk=10,
    # Lone joints are mostly false.
    decode_min_joints=3,
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
        type='mmdet_ext.PartAffinityFieldHead',
        in_channels=112,
        num_keypoints=17,
        limbs=codec['limbs'],
        deconv_out_channels=None,
        conv_out_channels=(32, 48),
        conv_kernel_sizes=(1, 3),
        loss=dict(
            type='mmdet_ext.PartAffinityFieldLoss',
            heatmap_loss=dict(type='mmdet_ext.KeypointHeatmapLoss'),
        ),
        decoder=codec,
    ),
)
