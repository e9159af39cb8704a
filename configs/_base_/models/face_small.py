# A small IResNet, trained from nothing on a CPU in a minute: 256 numbers an embedding. At test the
# embeddings of a picture and of its mirror image are added. num_classes and input_size are the
# leaf's; (28, 23) is ORL's ratio.
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(type='mmdet_ext.FaceDataPreprocessor', flip_at_test=True),
    backbone=dict(
        type='mmdet_ext.IResNet',
        depth=18,
        base_channels=16,
        num_features=256,
        input_size=(28, 23),
        # torch's own; InsightFace's, the network's default, is for a thousand times the steps.
        init_cfg=dict(
            type='Kaiming',
            layer='Conv2d',
            a=5**0.5,
            mode='fan_in',
            nonlinearity='leaky_relu',
            distribution='uniform',
        ),
    ),
    neck=None,
    head=dict(
        type='mmdet_ext.MarginHead',
        num_classes=30,
        in_channels=256,
        flip_fusion='sum',
    ),
)
