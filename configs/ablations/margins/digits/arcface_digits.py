# ArcFace: the margin grows to 0.5 over the first half, so that the classes separate first. Seven
# centres in the plane are 2 pi / 7 = 0.9 radians apart, and m must be smaller.
_base_ = 'softmax_digits.py'

model = dict(head=dict(margin=dict(type='ArcFace', m=0.5), scale=16.0))

custom_hooks = [
    dict(type='mmdet_ext.FeatureScatterHook', interval=2),
    dict(type='mmdet_ext.MarginScheduleHook', param='m', start=0.0, stop=0.5, end=12),
]
