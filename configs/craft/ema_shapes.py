# Averaged weights (EMA), over the last hundred updates or so; validation and the checkpoint have
# them.
_base_ = '../detection/atss/atss_r18_fpn_demo_shapes.py'

custom_hooks = [
    dict(type='NumClassCheckHook'),
    # gamma makes the average short at first: early weights are forgotten soon.
    dict(
        type='EMAHook',
        ema_type='ExpMomentumEMA',
        momentum=0.01,
        gamma=100,
        update_buffers=True,
        priority=49,
    ),
]
