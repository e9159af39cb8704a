# NormFace: no margin; features and centres are normalised.
_base_ = 'softmax_orl.py'

model = dict(
    head=dict(margin=dict(type='NormFace'), scale=16.0),
)
