# MobileFaceNet with ArcFace, as in its paper: 112 x 112 images as (x - 127.5) / 128, and 128
# numbers per embedding. The network ends in the embedding, without a neck. A leaf config sets
# num_classes.
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(type='mmdet_ext.FaceDataPreprocessor'),
    backbone=dict(type='mmdet_ext.MobileFaceNet', num_features=128, input_size=112),
    neck=None,
    head=dict(
        type='mmdet_ext.MarginHead',
        in_channels=128,
        margin=dict(type='ArcFace', m=0.5),
        scale=64.0,
    ),
)
