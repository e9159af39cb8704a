# A long warm-up: three epochs, of 60 steps each, from nothing; then cosine from where it ends.
_base_ = '../detection/atss/atss_r18_fpn_demo_shapes.py'

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=180),
    dict(
        type='CosineAnnealingLR',
        T_max=7,
        begin=3,
        end=10,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
