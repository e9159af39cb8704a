# Step 3: GFL's head. The score of a class is the overlap of its box, and each side is a
# distribution.
_base_ = './recipe_2_stride_4_12e_bccd.py'

model = dict(
    type='GFL',
    bbox_head=dict(
        _delete_=True,
        type='mmdet_ext.GFLHead',
        num_classes=3,
        in_channels=64,
        stacked_convs=2,
        feat_channels=64,
        anchor_generator=dict(
            type='AnchorGenerator',
            ratios=[1.0],
            octave_base_scale=8,
            scales_per_octave=1,
            strides=[4, 8, 16, 32, 64],
        ),
        reg_max=16,
        loss_cls=dict(
            type='mmdet_ext.QualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=1.0
        ),
        loss_dfl=dict(type='mmdet_ext.DistributionFocalLoss', loss_weight=0.25),
        loss_bbox=dict(type='mmdet_ext.GIoULoss', loss_weight=2.0),
    ),
)
