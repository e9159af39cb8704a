"""Config of a small NanoDet-Plus, with our networks in all of its places."""

from __future__ import annotations

from typing import Any

from tests.hosts.detectors import CLASSES, TEST

STRIDES = [8, 16, 32, 64]
CHANNELS = 16


def nanodet_plus(classes: int = CLASSES, guided: bool = True, **changes: Any) -> dict[str, Any]:
    """Return the config of a narrow NanoDet-Plus.

    Args:
        classes: number of classes.
        guided: whether it has a guidance.
        **changes: further options of the detector.
    """
    guide = dict(
        type='mmdet_ext.GFLHead',
        num_classes=classes,
        in_channels=2 * CHANNELS,
        feat_channels=CHANNELS,
        stacked_convs=1,
        norm_cfg=dict(type='GN', num_groups=4),
        act_cfg=dict(type='LeakyReLU', negative_slope=0.1),
        anchor_generator=dict(
            type='AnchorGenerator',
            ratios=[1.0],
            octave_base_scale=5,
            scales_per_octave=1,
            strides=STRIDES,
            center_offset=0.0,
        ),
        reg_max=7,
    )
    return (
        dict(
            type='mmdet_ext.NanoDetPlus',
            data_preprocessor=dict(
                type='DetDataPreprocessor', mean=[127.0] * 3, std=[64.0] * 3, pad_size_divisor=32
            ),
            backbone=dict(type='mmdet_ext.ShuffleNetV2Backbone', widen_factor=0.5),
            neck=dict(type='mmdet_ext.GhostPAN', in_channels=[48, 96, 192], out_channels=CHANNELS),
            bbox_head=dict(
                type='mmdet_ext.NanoDetPlusHead',
                num_classes=classes,
                in_channels=CHANNELS,
                feat_channels=CHANNELS,
                stacked_convs=1,
                strides=STRIDES,
            ),
            aux_head=guide if guided else None,
            train_cfg=dict(
                assigner=dict(type='mmdet_ext.DynamicSoftLabelAssigner', soft_center_radius=None),
                allowed_border=-1,
                pos_weight=-1,
            ),
            test_cfg=TEST,
        )
        | changes
    )


#: Our networks that this detector has.
NANODET = ('NanoDetPlus', 'NanoDetPlusHead', 'GhostPAN', 'ShuffleNetV2Backbone')
