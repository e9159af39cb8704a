# MagFace. Features of 512 numbers after a batch norm have a length of about 23.
_base_ = 'softmax_orl.py'

model = dict(
    head=dict(
        margin=dict(type='MagFace', norms=(10.0, 35.0), margins=(0.1, 0.3)),
        scale=16.0,
    ),
)
