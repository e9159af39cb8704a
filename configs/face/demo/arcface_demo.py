# The recipe of softmax_demo.py with ArcFace.
_base_ = './softmax_demo.py'

model = dict(head=dict(margin=dict(type='ArcFace', m=0.2), scale=16.0))
