# A-Softmax with m = 4. Its annealing is fast, because there are only about 330 steps.
_base_ = 'softmax_digits.py'

model = dict(head=dict(margin=dict(type='SphereFace', m=4, gamma=5.0, lambda_min=0.5)))
