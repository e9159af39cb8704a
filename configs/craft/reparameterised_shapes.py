# The demo with mmpretrain's RepVGG as the backbone. It trains with three branches per block, and is
# exported with one: tools/deploy/export.py --fold. The arch is far below the smallest published
# (A0), so that it trains from scratch on a CPU.
_base_ = '../detection/atss/atss_r18_fpn_demo_shapes.py'

custom_imports = dict(imports=['mmdet_ext.compat', 'mmpretrain.models'], allow_failed_imports=False)

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpretrain.RepVGG',
        # Strides of 2 in the stem and in each stage: 4, 8, 16 and 32 px.
        arch=dict(
            num_blocks=[1, 2, 2, 1],
            width_factor=[0.5, 0.5, 0.5, 0.5],
            group_layer_map=None,
            se_cfg=None,
        ),
        out_indices=(0, 1, 2, 3),
    ),
    neck=dict(in_channels=[32, 64, 128, 256]),
)
