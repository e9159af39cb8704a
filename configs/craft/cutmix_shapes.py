# CutMix: a rectangle of another image over every second image, with the objects of both that can
# still be seen. The last two epochs see images as they are.
_base_ = './mosaic_shapes.py'

train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='mmdet_ext.CutMix', prob=0.5),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackDetInputs'),
        ]
    )
)
custom_hooks = [
    dict(type='NumClassCheckHook'),
    dict(type='YOLOXModeSwitchHook', num_last_epochs=2, skip_type_keys=('mmdet_ext.CutMix',)),
]
