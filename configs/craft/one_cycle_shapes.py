# OneCycle: up to a high learning rate within 30 % of the run, then down to almost nothing.
_base_ = '../detection/atss/atss_r18_fpn_demo_shapes.py'

param_scheduler = [
    dict(
        type='OneCycleLR',
        eta_max=2e-3,
        pct_start=0.3,
        div_factor=25.0,
        final_div_factor=1e4,
        total_steps=10,
        by_epoch=True,
        convert_to_iter_based=True,
    )
]
