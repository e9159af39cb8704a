# The recipe of unet_s4_stock_36e_shapes.py with Dice loss: each class of the batch counts alike,
# however few pixels it has.
_base_ = './unet_s4_stock_36e_shapes.py'

model = dict(
    decode_head=dict(
        loss_decode=dict(
            _delete_=True,
            type='mmdet_ext.DiceLoss',
            use_sigmoid=False,
            naive_dice=True,
            per_class=True,
            batch=True,
            ignore_absent=True,
        )
    )
)
