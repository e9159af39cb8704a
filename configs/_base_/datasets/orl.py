# AT&T/ORL: 40 people, 10 grey pictures of 92 x 112 each, in data/orl/s1 .. s40/1.pgm .. 10.pgm.
# s1 to s30 are trained on; s31 to s40, whom the network has never seen, give 4,950 test pairs.
# Pictures keep their size, 92 wide and 112 high: a resize to 112 x 112, which a network with a
# fully connected end may need, widens the faces. Put it behind LoadFace in both pipelines then,
# and crop_size=112 into RandomCrop.
dataset_type = 'mmdet_ext.FaceFolderDataset'
data_root = 'data/orl/'

train_pipeline = [
    dict(type='mmdet_ext.LoadFace'),
    # Shifts by up to 4 px; what comes in is grey, about 0 behind the preprocessing.
    dict(type='RandomCrop', crop_size=(112, 92), padding=4, pad_val=127),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='mmdet_ext.LoadFace'),
    dict(type='PackInputs'),
]

train_dataloader = dict(
    batch_size=30,
    num_workers=2,
    persistent_workers=True,
    drop_last=True,
    # For losses between pictures, 30 = 10 identities x 3 pictures:
    # sampler=dict(_delete_=True, type='mmdet_ext.IdentityBalancedSampler',
    #              identities_per_batch=10, pictures_per_identity=3)
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        identities=[f's{number}' for number in range(1, 31)],
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=50,
    num_workers=2,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        identities=[f's{number}' for number in range(31, 41)],
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
val_evaluator = dict(type='mmdet_ext.FaceVerificationMetric', pairs='all')
test_dataloader = val_dataloader
test_evaluator = val_evaluator
