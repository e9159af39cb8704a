# Large-margin softmax.
_base_ = 'softmax_orl.py'

model = dict(
    head=dict(margin=dict(type='LSoftmax', m=2)),
)
