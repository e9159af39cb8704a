# SphereFace: the angle counts threefold, by and by.
_base_ = 'softmax_orl.py'

model = dict(
    head=dict(margin=dict(type='SphereFace', m=3)),
)
