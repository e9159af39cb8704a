# MobileFaceNet under ArcFace, as its paper has it: 112 x 112 pictures as (x - 127.5) / 128, 128
# numbers an embedding. The network ends in the embedding: no neck. num_classes is the leaf's.
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
