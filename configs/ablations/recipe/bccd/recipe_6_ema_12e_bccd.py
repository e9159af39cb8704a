# Beside the recipe: averaged weights, over the last hundred updates or so.
_base_ = './recipe_5_flips_12e_bccd.py'

custom_hooks = [
    dict(type='NumClassCheckHook'),
    dict(
        type='EMAHook',
        ema_type='ExpMomentumEMA',
        momentum=0.01,
        gamma=100,
        update_buffers=True,
        priority=49,
    ),
]
