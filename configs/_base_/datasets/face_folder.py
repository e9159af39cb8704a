# Your own faces, cropped and upright: data/faces/<name>/<image>.jpg, one folder per identity. One
# identity in five is kept for the test, chosen by a hash of its name, and never trained on.
# The head's num_classes is the number of identities in the training part, which the log reports.
dataset_type = 'mmdet_ext.FaceFolderDataset'
data_root = 'data/faces/'

train_pipeline = [
    dict(type='mmdet_ext.LoadFace'),
    dict(type='Resize', scale=(112, 112)),
    # Shifts by up to 4 px. The border is filled with grey, about 0 after preprocessing.
    dict(type='RandomCrop', crop_size=112, padding=4, pad_val=127),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='mmdet_ext.LoadFace'),
    dict(type='Resize', scale=(112, 112)),
    dict(type='PackInputs'),
]

train_dataloader = dict(
    batch_size=32,
    num_workers=2,
    persistent_workers=True,
    drop_last=True,
    # For losses between images; 32 = 8 identities x 4 images:
    # sampler=dict(_delete_=True, type='mmdet_ext.IdentityBalancedSampler',
    #              identities_per_batch=8, pictures_per_identity=4)
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        identity_split=dict(part='train', val_fraction=0.2, seed=0),
        bad_images='drop',
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=2,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        identity_split=dict(part='val', val_fraction=0.2, seed=0),
        bad_images='error',
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
val_evaluator = dict(type='mmdet_ext.FaceVerificationMetric', pairs='all')
test_dataloader = val_dataloader
test_evaluator = val_evaluator
