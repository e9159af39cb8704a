# Joints by heatmaps, people by tags, on COCO: MMPose's own config with our codec and losses. With
# MMPose's losses it does not train: its config has no pipeline of training, and its heatmap loss
# refuses the weights of several people.
#     mim train mmpose configs/pose/associative_embedding_hrnet_w32_300e_coco.py
_base_ = [
    'mmpose::body_2d_keypoint/associative_embedding/coco/ae_hrnet-w32_8xb24-300e_coco-512x512.py',
    '../_base_/datasets/coco_joints.py',
]
# Checkpoints load wherever this config is read: in inferencers too, before a type is built.
custom_imports = dict(imports=['mmdet_ext.compat'], allow_failed_imports=False)

codec = dict(
    type='mmdet_ext.AssociativeEmbeddingCodec',
    input_size=(512, 512),
    heatmap_size=(128, 128),
    sigma=2,
    decode_topk=30,
    decode_center_shift=0.5,
    # Head and trunk first.
    decode_keypoint_order=[0, 1, 2, 3, 4, 5, 6, 11, 12, 7, 8, 9, 10, 13, 14, 15, 16],
    decode_max_instances=30,
)
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='BottomupRandomAffine', input_size=codec['input_size']),
    dict(type='RandomFlip', direction='horizontal'),
    dict(type='GenerateTarget', encoder=codec),
    dict(type='BottomupGetHeatmapMask'),
    dict(type='PackPoseInputs'),
]
train_dataloader = dict(dataset=dict(metainfo=_base_.coco_joints, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(metainfo=_base_.coco_joints))
test_dataloader = val_dataloader

model = dict(
    head=dict(
        keypoint_loss=dict(_delete_=True, type='mmdet_ext.KeypointHeatmapLoss', loss_weight=1.0),
        tag_loss=dict(_delete_=True, type='mmdet_ext.AssociativeEmbeddingLoss', loss_weight=0.001),
        # Maps are resized to the input before they are decoded.
        decoder=dict(codec, heatmap_size=codec['input_size'], _delete_=True),
    ),
)
