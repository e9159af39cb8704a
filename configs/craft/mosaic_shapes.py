# Mosaic: four images joined around a random centre, and the middle of it cut out at random
# scales. The last two epochs see images as they are.
_base_ = '../detection/atss/atss_r18_fpn_demo_shapes.py'

mosaic_pipeline = [
    dict(type='Mosaic', img_scale=(240, 180), pad_val=114.0),
    dict(
        type='RandomAffine',
        max_rotate_degree=0.0,
        max_shear_degree=0.0,
        scaling_ratio_range=(0.5, 1.5),
        # The mosaic is twice as large per side: the middle of it remains.
        border=(-120, -90),
    ),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
plain_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(240, 180), keep_ratio=True),
]
train_dataloader = dict(
    # The wrapper has no sizes of images by which batches could be sorted.
    batch_sampler=None,
    dataset=dict(
        _delete_=True,
        type='MultiImageMixDataset',
        dataset=dict(
            type={{_base_.dataset_type}},
            data_root={{_base_.data_root}},
            metainfo={{_base_.metainfo}},
            ann_file='annotations/instances_train.json',
            data_prefix=dict(img='images/train/'),
            filter_cfg=dict(filter_empty_gt=True, min_size=32),
            pipeline=plain_pipeline,
        ),
        pipeline=mosaic_pipeline,
    ),
)
custom_hooks = [
    dict(type='NumClassCheckHook'),
    dict(
        type='YOLOXModeSwitchHook',
        num_last_epochs=2,
        skip_type_keys=('Mosaic', 'RandomAffine'),
    ),
]
