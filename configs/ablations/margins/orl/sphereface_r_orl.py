# SphereFace-R.
_base_ = 'softmax_orl.py'

model = dict(
    head=dict(margin=dict(type='SphereFaceR', m=1.2), scale=16.0),
)
