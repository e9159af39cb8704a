# Multi-scale training: each image gets one of five sizes, from two thirds to four thirds of the
# usual one.
_base_ = '../detection/atss/atss_r18_fpn_demo_shapes.py'

train_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='RandomChoiceResize',
        scales=[(160, 120), (200, 150), (240, 180), (280, 210), (320, 240)],
        keep_ratio=True,
    ),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
