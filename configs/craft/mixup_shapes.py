# MixUp: half of an image, and half of another one over it, with the objects of both. The last two
# epochs see images as they are.
_base_ = './mosaic_shapes.py'

train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='MixUp', img_scale=(240, 180), ratio_range=(0.8, 1.2), pad_val=114.0),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackDetInputs'),
        ]
    )
)
custom_hooks = [
    dict(type='NumClassCheckHook'),
    dict(type='YOLOXModeSwitchHook', num_last_epochs=2, skip_type_keys=('MixUp',)),
]
