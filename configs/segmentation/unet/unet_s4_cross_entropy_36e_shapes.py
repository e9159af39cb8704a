# The recipe of unet_s4_stock_36e_shapes.py with our cross entropy.
_base_ = './unet_s4_stock_36e_shapes.py'

model = dict(decode_head=dict(loss_decode=dict(type='mmdet_ext.CrossEntropyLoss')))
