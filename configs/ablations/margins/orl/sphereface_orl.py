# SphereFace: the angle gradually counts threefold.
_base_ = 'softmax_orl.py'

model = dict(
    head=dict(margin=dict(type='SphereFace', m=3)),
)
