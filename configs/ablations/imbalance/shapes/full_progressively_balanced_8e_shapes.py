# As `few_progressively_balanced_8e_shapes.py`, where most images have all classes.
_base_ = './full_uniform_8e_shapes.py'

train_dataloader = dict(
    sampler=dict(_delete_=True, type='mmdet_ext.ProgressivelyBalancedSampler', epochs=8)
)
