# The recipe of unet_s4_stock_36e_shapes.py with Dice loss and cross entropy from one softmax.
_base_ = './unet_s4_stock_36e_shapes.py'

model = dict(
    decode_head=dict(
        loss_decode=dict(_delete_=True, type='mmdet_ext.DiceCELoss', batch=True, ignore_absent=True)
    )
)
