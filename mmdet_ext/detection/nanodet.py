"""Conversion of a checkpoint of NanoDet-Plus, of its authors' code, to one of this package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mmdet.registry import MODELS
from mmengine.registry import DefaultScope

from mmdet_ext.compat.layouts import grouped_keys
from mmdet_ext.compat.nanodet import Weights, read_nanodet
from mmdet_ext.compat.weights import ConversionError, StateDict
from mmdet_ext.detection.backbones.layers import LEAKY_RELU
from mmdet_ext.detection.backbones.shufflenet_v2 import STAGE_CHANNELS
from mmdet_ext.detection.heads.dense.nanodet_plus import corner_anchors
from mmdet_ext.utils.files import whole_file
from mmdet_ext.version import __version__

#: Strides of the published networks.
STRIDES = (8, 16, 32, 64)
#: Largest distance where the file does not say it.
REG_MAX = 7


def convert_nanodet(source: Path, out: Path, weights: Weights = 'averaged') -> str:
    """Convert a checkpoint of NanoDet-Plus to one in MMEngine's form.

    The network is inferred from the shapes, and every name and shape is compared with it before
    anything is written.

    Args:
        source: The checkpoint, or a file with the weights alone.
        out: The checkpoint to write.
        weights: 'averaged' for the running average, 'trained' for the weights themselves, where
            the file has both.

    Returns:
        What was converted, in a line.

    Raises:
        ConversionError: If the file holds another network, or ``out`` is the source.
        OSError: If a file cannot be read or written.
        RuntimeError: If the file is refused or cannot be loaded.
    """
    if out.resolve() == source.resolve():
        raise ConversionError(f'{out} would be written over what is read: name another file')
    found, which = read_nanodet(source, weights)
    config = config_of(found)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(config)
    lines = grouped_keys(model.state_dict(), found)
    if lines:
        listed = '\n  '.join(lines)
        raise ConversionError(
            f'{source} does not hold the weights of the NanoDet-Plus that its shapes suggest:\n'
            f'  {listed}'
        )
    model.load_state_dict(found)
    meta: dict[str, Any] = {
        'source': 'nanodet',
        'source_file': source.name,
        'weights': which,
        'mmdet_ext_version': __version__,
    }
    with whole_file(out) as part:
        torch.save({'meta': meta, 'state_dict': model.state_dict()}, part)
    head = model.bbox_head
    size = sum(each.numel() for each in model.parameters())
    guide = '' if model.aux_head is None else ' with its guidance'
    return (
        f'{out}: {which} of {source.name}, NanoDet-Plus {config["backbone"]["widen_factor"]}x'
        f'{guide}, {size:,} parameters, for {head.num_classes} classes'
    )


def config_of(weights: StateDict) -> dict[str, Any]:
    """Infer the config of a NanoDet-Plus from the shapes of its weights.

    Args:
        weights: by the names of `mmdet_ext.NanoDetPlus`.

    Raises:
        ConversionError: If the shapes are those of no NanoDet-Plus with a ShuffleNetV2.
    """
    stages = []
    for stage in (2, 3, 4):
        name = f'backbone.stage{stage}.0.branch2.5.weight'
        if name not in weights:
            raise ConversionError(
                f'there is no {name}: the backbone is not a ShuffleNetV2, the only one that this '
                'package has for NanoDet-Plus'
            )
        stages.append(2 * len(weights[name]))
    widths = [width for width, each in STAGE_CHANNELS.items() if list(each) == stages]
    if not widths:
        raise ConversionError(
            f'the stages of the backbone have {stages} channels, expected one of '
            f'{[list(each) for each in STAGE_CHANNELS.values()]}'
        )
    last = weights['bbox_head.gfl_cls.0.weight']
    levels = sum(
        1 for key in weights if key.startswith('bbox_head.gfl_cls.') and key.endswith('.weight')
    )
    guide = weights.get('aux_head.gfl_cls.weight')
    reg_max = REG_MAX
    if 'aux_head.gfl_reg.weight' in weights:
        reg_max = len(weights['aux_head.gfl_reg.weight']) // 4 - 1
    classes = len(last) - 4 * (reg_max + 1)
    if classes < 1 or levels > len(STRIDES):
        raise ConversionError(
            f'the head has {levels} levels with {len(last)} outputs each, expected at most '
            f'{len(STRIDES)} levels with classes + {4 * (reg_max + 1)} outputs'
        )
    strides = list(STRIDES[:levels])
    width = last.shape[1]
    parts: dict[str, Any] = {}
    if guide is not None:
        parts['aux_head'] = dict(
            type='mmdet_ext.GFLHead',
            num_classes=classes,
            in_channels=2 * width,
            feat_channels=guide.shape[1],
            act_cfg=LEAKY_RELU,
            anchor_generator=corner_anchors(strides),
            reg_max=reg_max,
        )
    return dict(
        type='mmdet_ext.NanoDetPlus',
        backbone=dict(type='mmdet_ext.ShuffleNetV2Backbone', widen_factor=widths[0]),
        neck=dict(type='mmdet_ext.GhostPAN', in_channels=stages, out_channels=width),
        bbox_head=dict(
            type='mmdet_ext.NanoDetPlusHead',
            num_classes=classes,
            in_channels=width,
            feat_channels=width,
            strides=strides,
            reg_max=reg_max,
        ),
        **parts,
    )
