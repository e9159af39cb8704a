# A small IResNet that trains from scratch on a CPU in a minute, with 256 numbers per embedding. At
# test the embeddings of an image and of its mirror image are added. A leaf config sets num_classes
# and input_size; (28, 23) is the ratio of ORL's images.
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(type='mmdet_ext.FaceDataPreprocessor', flip_at_test=True),
    backbone=dict(
        type='mmdet_ext.IResNet',
        depth=18,
        base_channels=16,
        num_features=256,
        input_size=(28, 23),
        # torch's default. InsightFace's, the network's default, is for 1,000 times the steps.
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
    head=dict(type='mmdet_ext.MarginHead', num_classes=30, in_channels=256),
)
