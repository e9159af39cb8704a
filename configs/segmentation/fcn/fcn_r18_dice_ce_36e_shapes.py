# The recipe of fcn_r18_stock_36e_shapes.py with Dice loss and cross entropy from one softmax.
_base_ = './fcn_r18_stock_36e_shapes.py'

model = dict(
    decode_head=dict(
        loss_decode=dict(_delete_=True, type='mmdet_ext.DiceCELoss', batch=True, ignore_absent=True)
    )
)
