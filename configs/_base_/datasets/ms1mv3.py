# MS1MV3 (ms1m-retinaface-t1): 5,179,510 images of 93,431 identities, in InsightFace's records. The
# images are aligned to 112 x 112. lfw.bin, cfp_fp.bin and agedb_30.bin are in the same folder. To
# test on another of them: --cfg-options test_dataloader.dataset.ann_file=agedb_30.bin
data_root = 'data/ms1mv3/'

train_pipeline = [
    dict(type='mmdet_ext.LoadFace'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='mmdet_ext.LoadFace'),
    dict(type='PackInputs'),
]

train_dataloader = dict(
    batch_size=128,
    num_workers=4,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='mmdet_ext.FaceRecordDataset',
        data_root=data_root,
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=256,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='mmdet_ext.FacePairsDataset',
        data_root=data_root,
        ann_file='lfw.bin',
        pipeline=test_pipeline,
    ),
)
val_evaluator = dict(type='mmdet_ext.FaceVerificationMetric', pairs='dataset')
test_dataloader = val_dataloader
test_evaluator = val_evaluator
