# From all images alike in the first epoch to all classes alike in the last.
_base_ = './few_uniform_8e_shapes.py'

train_dataloader = dict(
    sampler=dict(_delete_=True, type='mmdet_ext.ProgressivelyBalancedSampler', epochs=8)
)
