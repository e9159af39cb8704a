# Joints by heatmaps, people by part affinity fields, on COCO: MMPose's HRNet of associative
# embedding with our head. Its recipe of training is theirs; nobody has trained this one yet.
#     mim train mmpose configs/pose/part_affinity_field_hrnet_w32_300e_coco.py
_base_ = './associative_embedding_hrnet_w32_300e_coco.py'

codec = dict(
    _delete_=True,
    type='mmdet_ext.PartAffinityField',
    input_size=(512, 512),
    heatmap_size=(128, 128),
    sigma=2,
    # Limbs beyond COCO's own tie people together where joints are missing.
    limbs='coco_wide',
    decode_topk=30,
    decode_min_joints=3,
    decode_max_instances=30,
)
own_codec = {key: value for key, value in codec.items() if key != '_delete_'}
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='BottomupRandomAffine', input_size=(512, 512)),
    dict(type='RandomFlip', direction='horizontal'),
    dict(type='GenerateTarget', encoder=own_codec),
    dict(type='BottomupGetHeatmapMask'),
    dict(type='PackPoseInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

model = dict(
    head=dict(
        _delete_=True,
        type='mmdet_ext.PartAffinityFieldHead',
        in_channels=32,
        num_keypoints=17,
        limbs='coco_wide',
        deconv_out_channels=None,
        loss=dict(
            type='mmdet_ext.PartAffinityFieldLoss',
            heatmap_loss=dict(type='mmdet_ext.KeypointHeatmapLoss'),
        ),
        decoder=own_codec,
    ),
    # Fields are decoded at their own size.
    test_cfg=dict(restore_heatmap_size=False),
)
