# The recipe of unet_s4_stock_36e_shapes.py with two losses in the head and an auxiliary head with a
# third one on the features of half the resolution.
_base_ = './unet_s4_stock_36e_shapes.py'

model = dict(
    decode_head=dict(
        loss_decode=[
            dict(type='mmdet_ext.CrossEntropyLoss', loss_weight=1.0),
            dict(
                type='mmdet_ext.DiceLoss',
                use_sigmoid=False,
                naive_dice=True,
                per_class=True,
                batch=True,
                ignore_absent=True,
                loss_weight=1.0,
            ),
        ]
    ),
    auxiliary_head=dict(
        type='FCNHead',
        in_channels=16,
        in_index=2,
        channels=8,
        num_convs=1,
        concat_input=False,
        num_classes=4,
        norm_cfg=dict(type='BN', requires_grad=True),
        align_corners=False,
        loss_decode=dict(
            type='mmdet_ext.FocalLoss',
            use_sigmoid=False,
            gamma=2.0,
            alpha=None,
            loss_weight=0.4,
        ),
    ),
)
