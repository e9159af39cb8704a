# IResNet-34, otherwise as IResNet-50.
_base_ = './iresnet50.py'

model = dict(backbone=dict(depth=34))
