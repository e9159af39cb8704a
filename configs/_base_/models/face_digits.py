# A small IResNet for digits of 28 x 28, with an embedding of two numbers, which can be drawn
# directly. No batch norm follows, so that the embedding keeps its length. A leaf config sets the
# margin.
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(type='mmdet_ext.FaceDataPreprocessor'),
    backbone=dict(
        type='mmdet_ext.IResNet',
        depth=18,
        base_channels=8,
        input_size=28,
        with_embedding=False,
    ),
    neck=None,
    head=dict(
        type='mmdet_ext.MarginHead',
        num_classes=7,
        # 64 channels of 2 x 2
        in_channels=256,
        neck='fc',
        embedding_channels=2,
    ),
)
