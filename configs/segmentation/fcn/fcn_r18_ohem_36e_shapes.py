# The recipe of fcn_r18_stock_36e_shapes.py, trained on hard pixels alone: those whose class has a
# probability below 0.7, and in any case 2,000 for each image.
_base_ = './fcn_r18_stock_36e_shapes.py'

model = dict(
    decode_head=dict(
        loss_decode=dict(
            _delete_=True,
            type='mmdet_ext.OHEMPixelLoss',
            loss=dict(type='mmdet_ext.CrossEntropyLoss'),
            thresh=0.7,
            min_kept=2000,
        )
    )
)
