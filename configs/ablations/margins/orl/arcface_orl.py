# ArcFace.
_base_ = 'softmax_orl.py'

model = dict(
    head=dict(margin=dict(type='ArcFace', m=0.2), scale=16.0),
)
