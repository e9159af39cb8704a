# IResNet-50 with ArcFace, as InsightFace trains it: 112 x 112 RGB images as
# (x - 127.5) / 127.5, so that its weights can be used here. The network ends in the embedding,
# without a neck. A leaf config sets num_classes.
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(type='mmdet_ext.FaceDataPreprocessor', std=127.5),
    backbone=dict(type='mmdet_ext.IResNet', depth=50, num_features=512, input_size=112),
    neck=None,
    head=dict(
        type='mmdet_ext.MarginHead',
        in_channels=512,
        margin=dict(type='ArcFace', m=0.5),
        scale=64.0,
    ),
)
