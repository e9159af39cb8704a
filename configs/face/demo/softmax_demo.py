# One folder per person, a small network, a few minutes on a CPU. `make demo-face` trains this
# config and arcface_demo.py; it sets data_root, identities, num_classes and epochs.
_base_ = [
    '../../_base_/models/face_small.py',
    '../../_base_/datasets/face_folder.py',
    '../../_base_/schedules/face_small_30e.py',
    '../../_base_/face_runtime.py',
]

model = dict(backbone=dict(input_size=40), head=dict(margin=dict(type='Softmax')))

train_pipeline = [
    dict(type='mmdet_ext.LoadFace'),
    dict(
        type='RandomResizedCrop',
        scale=40,
        crop_ratio_range=(0.8, 1.0),
        aspect_ratio_range=(0.9, 1.1),
        interpolation='area',
    ),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='ColorJitter', brightness=0.25, contrast=0.25),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='mmdet_ext.LoadFace'),
    dict(type='Resize', scale=(40, 40), interpolation='area'),
    dict(type='PackInputs'),
]
split = dict(val_fraction=0.2, seed=0)
train_dataloader = dict(
    dataset=dict(pipeline=train_pipeline, identity_split=dict(part='train', **split)),
)
val_dataloader = dict(
    dataset=dict(pipeline=test_pipeline, identity_split=dict(part='val', **split)),
)
test_dataloader = val_dataloader

custom_hooks = [
    dict(type='EMAHook', momentum=0.02, update_buffers=True),
    # The first and the last epoch.
    dict(type='mmdet_ext.FeatureScatterHook', interval=1000, projection='pca_each'),
]
default_hooks = dict(checkpoint=dict(interval=10, max_keep_ckpts=1))
