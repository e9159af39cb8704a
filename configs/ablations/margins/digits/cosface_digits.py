# CosFace: between centres 0.9 radians apart, cosines differ by 1 - cos 0.9 = 0.38, and m must be
# smaller. It grows over the first half.
_base_ = 'softmax_digits.py'

model = dict(head=dict(margin=dict(type='CosFace', m=0.25), scale=16.0))

custom_hooks = [
    dict(type='mmdet_ext.FeatureScatterHook', interval=2),
    dict(type='mmdet_ext.MarginScheduleHook', param='m', start=0.0, stop=0.25, end=12),
]
