# Accumulated gradients: a step of the optimizer after four batches of four images, as of 16
# images. The learning rate is that of 16 images, and batch norms still see four.
_base_ = '../detection/atss/atss_r18_fpn_demo_shapes.py'

optim_wrapper = dict(accumulative_counts=4)
# Schedulers count batches, not steps of the optimizer: 120 batches are 30 steps.
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=120),
    dict(
        type='CosineAnnealingLR',
        T_max=10,
        begin=0,
        end=10,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
