"""Small detectors with our parts of two stages, BiFPN or squeeze-and-excitation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmdet_ext.catalog.case import Case
from mmdet_ext.data.proposals import find_proposals, grid_windows, write_proposals
from tests._helpers.dense_heads import CHANNELS, STRIDES
from tests.hosts.boxes import data_of
from tests.hosts.detectors import CLASSES, WIDTHS, single, two_stages

SIDE = 3
#: Options that a part needs beside those of its case.
NEEDED: dict[str, dict[str, Any]] = {
    'BiFPN': dict(in_channels=list(WIDTHS), out_channels=CHANNELS, start_level=1, num_outs=3),
    'LightHeadRoIHead': dict(in_channels=CHANNELS, mid_channels=4, map_channels=10 * SIDE**2),
    'PSRoIPool': dict(
        in_channels=CHANNELS, out_channels=CLASSES + 5, featmap_strides=STRIDES, finest_scale=24
    ),
    'RCNNWarpRoIExtractor': dict(
        backbone=dict(type='ResNet', depth=18, base_channels=4, out_indices=(3,)),
        out_channels=32,
        output_size=1,
    ),
    'RFCNHead': dict(num_classes=CLASSES),
    'SPPRoIExtractor': dict(out_channels=CHANNELS, featmap_strides=STRIDES, finest_scale=24),
}
BOX = dict(in_channels=CHANNELS, fc_out_channels=16, roi_feat_size=4, num_classes=CLASSES)


def with_part(case: Case) -> tuple[str, dict[str, Any], bool]:
    """Return the place of a part, the detector that has it, and whether it needs proposals.

    The place is a key of `tests.hosts.detectors.reported`.
    """
    return PARTS[case.name](_part(case.name, **case.options))


def _part(name: str, **options: Any) -> dict[str, Any]:
    return dict(type=f'mmdet_ext.{name}', **{**NEEDED.get(name, {}), **options})


def proposing(root: Path, part: str) -> dict[str, Any]:
    """Return the config of a data set with proposals, whose file is written where it is absent."""
    path = root / 'proposals' / f'{part}.pkl'
    if not path.exists():
        found = find_proposals(root / f'{part}.json', root / part, grid_windows)
        write_proposals(found.boxes, path)
    resize = dict(type='Resize', scale=(96, 96), keep_ratio=True)
    steps = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadProposals', num_max_proposals=40),
        dict(type='LoadAnnotations', with_bbox=True),
        dict(type='ProposalBroadcaster', transforms=[resize]),
        dict(type='PackDetInputs'),
    ]
    return {**data_of(root, part, CLASSES, steps=steps), 'proposal_file': str(path)}


def _two_stages(extractor: Any = None, box: Any = None, **roi: Any) -> dict[str, Any]:
    model = two_stages()
    head = model['roi_head']
    head.update(roi)
    if extractor is not None:
        head['bbox_roi_extractor'] = extractor
    if box is not None:
        head['bbox_head'] = box
    return model


def _fast(extractor: Any, box: Any) -> dict[str, Any]:
    """Return a detector that has neither a proposal network nor a neck."""
    model = _two_stages(extractor, box)
    model.update(type='FastRCNN', backbone=dict(type='mmdet_ext.IdentityBackbone'), neck=None)
    for stage in ('train_cfg', 'test_cfg'):
        model[stage] = dict(rcnn=model[stage]['rcnn'])
    del model['rpn_head']
    return model


def _rcnn(part: Any) -> tuple[str, dict[str, Any], bool]:
    if part['type'] == 'mmdet_ext.IdentityBackbone':
        part = _part('RCNNWarpRoIExtractor', crop_size=32, context=4)
    box = dict(
        type='BBoxHead', with_avg_pool=True, in_channels=32, roi_feat_size=1, num_classes=CLASSES
    )
    return 'proposals', _fast(part, box), True


def _pyramid(part: Any) -> tuple[str, dict[str, Any], bool]:
    box = dict(type='Shared2FCBBoxHead', **{**BOX, 'roi_feat_size': (50, 1)})
    return 'two stages', _two_stages(part, box), False


def _maps(part: Any) -> tuple[str, dict[str, Any], bool]:
    return 'two stages', _two_stages(part, _part('RFCNHead', roi_feat_size=SIDE)), False


def _votes(part: Any) -> tuple[str, dict[str, Any], bool]:
    return 'two stages', _two_stages(_part('PSRoIPool', output_size=SIDE), part), False


def _light_head(part: Any) -> tuple[str, dict[str, Any], bool]:
    maps = _part('PSRoIPool', in_channels=None, out_channels=10, output_size=SIDE)
    options = {**BOX, 'in_channels': 10, 'roi_feat_size': SIDE}
    box = dict(type='ConvFCBBoxHead', num_shared_fcs=1, **options)
    return 'two stages', _two_stages(maps, box, **part), False


def _neck(part: Any) -> tuple[str, dict[str, Any], bool]:
    model = single('RetinaHead')
    model['neck'] = part
    return 'RetinaHead', model, False


def _plugin(part: Any) -> tuple[str, dict[str, Any], bool]:
    model = single('RetinaHead')
    plugins = [dict(cfg=part, position='after_conv3')]
    model['backbone'].update(depth=50, plugins=plugins)
    model['neck'].update(in_channels=[16, 32, 64, 128])
    return 'RetinaHead', model, False


#: Detector of each part, by its name.
PARTS: dict[str, Callable[[Any], tuple[str, dict[str, Any], bool]]] = {
    'BiFPN': _neck,
    'IdentityBackbone': _rcnn,
    'LightHeadRoIHead': _light_head,
    'PSRoIPool': _maps,
    'RCNNWarpRoIExtractor': _rcnn,
    'RFCNHead': _votes,
    'SPPRoIExtractor': _pyramid,
    'SqueezeExcitation': _plugin,
}
