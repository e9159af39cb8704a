# The recipe of unet_s4_stock_36e_shapes.py with focal loss over the softmax.
_base_ = './unet_s4_stock_36e_shapes.py'

model = dict(
    decode_head=dict(
        loss_decode=dict(
            _delete_=True, type='mmdet_ext.FocalLoss', use_sigmoid=False, gamma=2.0, alpha=None
        )
    )
)
