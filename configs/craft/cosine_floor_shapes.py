# Cosine with a floor: the learning rate falls to a twentieth, and stays there for the last two
# epochs.
_base_ = '../detection/atss/atss_r18_fpn_demo_shapes.py'

param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=30),
    dict(
        type='CosineAnnealingLR',
        eta_min_ratio=0.05,
        T_max=8,
        begin=0,
        end=8,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
