# Scikit-learn's 1,797 real digits of 8 x 8 pixels, enlarged. Digits 0 to 6 are trained on. The test
# has all ten, so that 7, 8 and 9 are identities that the network has never seen.
dataset_type = 'mmdet_ext.DigitsDataset'

train_pipeline = [
    dict(type='Resize', scale=(28, 28), interpolation='bilinear'),
    # Shifts by up to 2 px. There is no flip, because a mirrored digit is not a digit.
    dict(type='RandomCrop', crop_size=28, padding=2, pad_val=0),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='Resize', scale=(28, 28), interpolation='bilinear'),
    dict(type='PackInputs'),
]

train_dataloader = dict(
    batch_size=64,
    num_workers=2,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        digits=(0, 1, 2, 3, 4, 5, 6),
        part='train',
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=128,
    num_workers=2,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        digits=(0, 1, 2, 3, 4, 5, 6, 7, 8, 9),
        part='test',
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
val_evaluator = dict(type='mmdet_ext.FaceVerificationMetric', pairs='all')
test_dataloader = val_dataloader
test_evaluator = val_evaluator
