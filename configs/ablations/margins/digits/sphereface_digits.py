# A-Softmax with m = 4; its annealing is fast, as there are some 330 steps in all.
_base_ = 'softmax_digits.py'

model = dict(head=dict(margin=dict(type='SphereFace', m=4, gamma=5.0, lambda_min=0.5)))
