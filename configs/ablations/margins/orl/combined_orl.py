# ArcFace's and CosFace's margins together.
_base_ = 'softmax_orl.py'

model = dict(
    head=dict(margin=dict(type='CombinedMargin', m1=1.0, m2=0.1, m3=0.1), scale=16.0),
)
