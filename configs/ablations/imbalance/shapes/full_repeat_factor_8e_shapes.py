# As `few_repeat_factor_8e_shapes.py`, where most images have all classes: 235 images in an epoch,
# those with a triangle 1.2 times each.
_base_ = './full_uniform_8e_shapes.py'

train_dataloader = dict(
    sampler=dict(_delete_=True, type='mmdet_ext.RepeatFactorSampler', oversample_thr=0.6, least=0.5)
)
