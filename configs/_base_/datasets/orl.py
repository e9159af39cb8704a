# AT&T/ORL: 40 identities with 10 grey images of 92 x 112 each, data/orl/s1 .. s40/1.pgm .. 10.pgm.
# s1 to s30 are trained on. s31 to s40, which the network has never seen, give 4,950 test pairs.
# Images are resized to a width of 23 and a height of 28: with 300 images, the network would
# memorise finer details.
dataset_type = 'mmdet_ext.FaceFolderDataset'
data_root = 'data/orl/'

shift = dict(
    type='Translate',
    prob=1.0,
    magnitude_level=10,
    total_level=10,
    magnitude_std='inf',
    interpolation='bilinear',
)
cut = dict(
    type='RandomResizedCrop',
    scale=(28, 23),
    aspect_ratio_range=(0.76, 0.89),
    interpolation='area',
)
# Half of the images are shifted over grey, and only enlarged. Half have a replicated border, so
# that they can also be reduced, by up to an eighth. This imitates people nearer to and farther from
# the camera.
grey_border = [
    dict(magnitude_range=(0, 0.08), **shift),
    dict(magnitude_range=(0, 0.08), direction='vertical', **shift),
    dict(crop_ratio_range=(0.8, 1.0), **cut),
]
replicated_border = [
    dict(type='RandomCrop', crop_size=(130, 110), pad_if_needed=True, padding_mode='edge'),
    dict(magnitude_range=(0, 0.06), **shift),
    dict(magnitude_range=(0, 0.06), direction='vertical', **shift),
    dict(crop_ratio_range=(0.6, 0.95), **cut),
]
train_pipeline = [
    dict(type='mmdet_ext.LoadFace'),
    dict(type='RandomChoice', transforms=[grey_border, replicated_border]),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='ColorJitter', brightness=0.1, contrast=0.5),
    dict(type='RandomErasing', erase_prob=0.25, max_area_ratio=0.12),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='mmdet_ext.LoadFace'),
    dict(type='Resize', scale=(23, 28), interpolation='area'),
    dict(type='PackInputs'),
]

# No workers: so few and small images are prepared faster than workers can send them.
train_dataloader = dict(
    batch_size=30,
    num_workers=0,
    persistent_workers=False,
    drop_last=True,
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
    num_workers=0,
    persistent_workers=False,
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
val_evaluator = [
    dict(type='mmdet_ext.FaceVerificationMetric', pairs='all'),
    # The first image of each identity is the gallery; the other nine are searched in it.
    dict(type='mmdet_ext.FaceIdentificationMetric', ranks=(1, 5)),
]
test_dataloader = val_dataloader
test_evaluator = val_evaluator
