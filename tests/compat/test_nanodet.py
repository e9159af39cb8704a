"""Checkpoints of NanoDet-Plus: names, averaged weights, files that hold something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from torch import Tensor

from mmdet_ext.compat.nanodet import our_name, read_nanodet
from mmdet_ext.compat.weights import ConversionError
from mmdet_ext.detection.nanodet import config_of, convert_nanodet
from tests._helpers.tools import load_tool

#: Names of the authors' code, with the module of each in ours.
NAMES = {
    'backbone.stage2.0.branch1.0.weight': 'backbone.stage2.0.branch1.0.weight',
    'fpn.reduce_layers.1.bn.running_mean': 'neck.reduce_layers.1.bn.running_mean',
    'fpn.top_down_blocks.0.blocks.0.ghost1.cheap_operation.1.bias': (
        'neck.top_down_blocks.0.0.expand.cheap.bn.bias'
    ),
    'fpn.bottom_up_blocks.1.blocks.0.ghost2.primary_conv.0.weight': (
        'neck.bottom_up_blocks.1.0.project.primary.conv.weight'
    ),
    'aux_fpn.top_down_blocks.1.blocks.0.shortcut.2.weight': (
        'aux_neck.top_down_blocks.1.0.shortcut.pointwise_conv.conv.weight'
    ),
    'fpn.downsamples.0.depthwise.weight': 'neck.downsamples.0.depthwise_conv.conv.weight',
    'fpn.extra_lvl_in_conv.0.pwnorm.weight': 'neck.extra_in.0.pointwise_conv.bn.weight',
    'aux_fpn.extra_lvl_out_conv.0.pointwise.weight': (
        'aux_neck.extra_out.0.pointwise_conv.conv.weight'
    ),
    'head.cls_convs.3.1.dwnorm.running_var': (
        'bbox_head.cls_convs.3.1.depthwise_conv.bn.running_var'
    ),
    'head.gfl_cls.2.bias': 'bbox_head.gfl_cls.2.bias',
    'head.distribution_project.project': 'bbox_head.integral.project',
    'aux_head.cls_convs.3.gn.weight': 'aux_head.cls_convs.3.gn.weight',
    'aux_head.scales.3.scale': 'aux_head.scales.3.scale',
}
#: Of one of our names, in turn, what makes that of the authors' code.
BACK = (
    ('bbox_head.integral.', 'head.distribution_project.'),
    ('bbox_head.', 'head.'),
    ('aux_neck.', 'aux_fpn.'),
    ('neck.', 'fpn.'),
    ('shortcut.depthwise_conv.conv', 'shortcut.0'),
    ('shortcut.depthwise_conv.bn', 'shortcut.1'),
    ('shortcut.pointwise_conv.conv', 'shortcut.2'),
    ('shortcut.pointwise_conv.bn', 'shortcut.3'),
    ('depthwise_conv.conv', 'depthwise'),
    ('depthwise_conv.bn', 'dwnorm'),
    ('pointwise_conv.conv', 'pointwise'),
    ('pointwise_conv.bn', 'pwnorm'),
    ('.0.expand.', '.blocks.0.ghost1.'),
    ('.0.project.', '.blocks.0.ghost2.'),
    ('.0.shortcut', '.blocks.0.shortcut'),
    ('.primary.conv', '.primary_conv.0'),
    ('.primary.bn', '.primary_conv.1'),
    ('.cheap.conv', '.cheap_operation.0'),
    ('.cheap.bn', '.cheap_operation.1'),
    ('extra_in', 'extra_lvl_in_conv'),
    ('extra_out', 'extra_lvl_out_conv'),
)


def theirs(name: str) -> str:
    for ours, other in BACK:
        name = name.replace(ours, other) if not name.startswith('aux_head') else name
    return name


@pytest.fixture(scope='module')
def weights() -> dict[str, Tensor]:
    """Return weights of the narrowest network, by the names of the authors' code."""
    torch.manual_seed(0)
    guide = dict(
        type='mmdet_ext.GFLHead',
        num_classes=3,
        in_channels=32,
        feat_channels=32,
        act_cfg=dict(type='LeakyReLU', negative_slope=0.1),
        anchor_generator=dict(
            type='AnchorGenerator',
            ratios=[1.0],
            octave_base_scale=5,
            scales_per_octave=1,
            strides=[8, 16, 32, 64],
        ),
        reg_max=7,
    )
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(
            ConfigDict(
                type='mmdet_ext.NanoDetPlus',
                backbone=dict(type='mmdet_ext.ShuffleNetV2Backbone', widen_factor=0.5),
                neck=dict(type='mmdet_ext.GhostPAN', in_channels=[48, 96, 192], out_channels=16),
                bbox_head=dict(
                    type='mmdet_ext.NanoDetPlusHead',
                    num_classes=3,
                    in_channels=16,
                    feat_channels=16,
                ),
                aux_head=guide,
            )
        )
    return {
        theirs(key): torch.randn(value.shape) if value.is_floating_point() else value
        for key, value in model.state_dict().items()
        if key != 'aux_head.integral.project'  # which theirs has not
    }


def saved(path: Path, weights: dict[str, Tensor], *prefixes: str, **others: Any) -> Path:
    """Save a checkpoint with the weights once per prefix, plus 1 for each after the first."""
    content = {
        f'{prefix}{key}': value + number if value.is_floating_point() else value
        for number, prefix in enumerate(prefixes)
        for key, value in weights.items()
    }
    torch.save({'state_dict': content, 'epoch': 3, **others}, path)
    return path


@pytest.mark.parametrize('name', NAMES)
def test_names_are_those_of_our_modules(name: str) -> None:
    assert our_name(name) == NAMES[name]


def test_each_weight_is_in_its_place_and_none_is_left(
    weights: dict[str, Tensor], tmp_path: Path
) -> None:
    source = saved(tmp_path / 'a.ckpt', weights, 'model.', 'avg_model.', optimizer_states=[])
    line = convert_nanodet(source, tmp_path / 'a.pth')
    assert 'the averaged weights of a.ckpt' in line and 'for 3 classes' in line
    found = torch.load(tmp_path / 'a.pth', weights_only=True)
    state = found['state_dict']
    model = MODELS.build(ConfigDict(config_of(state)))
    assert model.load_state_dict(state, strict=True).missing_keys == []
    for name, ours in NAMES.items():
        assert torch.equal(state[ours], weights[name] + 1), name
    assert state['aux_head.integral.project'].tolist() == list(range(8))
    assert len(state) == len(weights) + 1
    assert found['meta']['source_file'] == 'a.ckpt'


@pytest.mark.parametrize(
    ('prefixes', 'which', 'plus', 'words'),
    [
        (('model.', 'avg_model.'), 'averaged', 1, 'the averaged weights'),
        (('model.', 'avg_model.'), 'trained', 0, 'the trained weights'),
        (('model.',), 'averaged', 0, 'the trained weights, as it has no averaged ones'),
        (('',), 'averaged', 0, 'its only weights'),
        (('',), 'trained', 0, 'its only weights'),
    ],
)
def test_weights_are_chosen_by_their_prefix(
    prefixes: tuple[str, ...],
    which: Any,
    plus: int,
    words: str,
    weights: dict[str, Tensor],
    tmp_path: Path,
) -> None:
    found, text = read_nanodet(saved(tmp_path / 'b.ckpt', weights, *prefixes), which)
    assert text == words
    assert torch.equal(found['bbox_head.gfl_cls.2.bias'], weights['head.gfl_cls.2.bias'] + plus)


def test_a_file_without_the_guidance_is_a_detector_without_one(
    weights: dict[str, Tensor], tmp_path: Path
) -> None:
    small = {key: value for key, value in weights.items() if not key.startswith('aux_')}
    source = tmp_path / 'c.pth'
    torch.save(small, source)
    assert 'guidance' not in convert_nanodet(source, tmp_path / 'd.pth')
    state = torch.load(tmp_path / 'd.pth', weights_only=True)['state_dict']
    assert len(state) == len(small)


def dropped(weights: dict[str, Tensor], start: str) -> dict[str, Tensor]:
    return {key: value for key, value in weights.items() if not key.startswith(start)}


def changed(weights: dict[str, Tensor], key: str, value: Tensor) -> dict[str, Tensor]:
    return {**weights, key: value}


#: Case -> what becomes of the weights, and the error.
FAULTS = {
    'another network': (
        lambda w: {'layer1.0.weight': torch.zeros(3)},
        r'holds 1 entries \(layer1.0.weight\), expected NanoDet-Plus: weights of backbone, fpn',
    ),
    'NanoDet before Plus': (
        lambda w: dropped(w, 'head.gfl_cls'),
        'expected NanoDet-Plus: .* NanoDet before Plus has another network',
    ),
    'no neck': (
        lambda w: dropped(w, 'fpn.top_down_blocks'),
        r'neck.top_down_blocks.\*: \d+ missing in the file \(all of the model',
    ),
    'a weight too many': (
        lambda w: changed(w, 'fpn.more.weight', torch.zeros(2)),
        r'neck.more.\*: 1 unexpected',
    ),
    'another backbone': (
        lambda w: dropped(w, 'backbone.stage3'),
        'there is no backbone.stage3.0.branch2.5.weight: the backbone is not a ShuffleNetV2',
    ),
    'another width': (
        lambda w: changed(w, 'backbone.stage2.0.branch2.5.weight', torch.zeros(5, 5, 1, 1)),
        r'stages of the backbone have \[10, 96, 192\] channels, expected one of \[\[48, 96, 192\]',
    ),
    'heads of different classes': (
        lambda w: changed(w, 'aux_head.gfl_cls.weight', torch.zeros(5, 32, 3, 3)),
        r'aux_head.gfl_cls.weight: \(5, 32, 3, 3\) in the file, \(3, 32, 3, 3\) in the model',
    ),
    'no class': (
        lambda w: changed(w, 'head.gfl_cls.0.weight', torch.zeros(32, 16, 1, 1)),
        'the head has 4 levels with 32 outputs each, expected .* classes . 32 outputs',
    ),
    'not finite': (
        lambda w: changed(w, 'head.gfl_cls.0.bias', torch.full((35,), float('nan'))),
        'not finite in bbox_head.gfl_cls.0.bias',
    ),
    'no tensor': (lambda w: {'a': 3}, r'holds 1 entries \(a\), expected a checkpoint'),
}


@pytest.mark.parametrize('fault', FAULTS)
def test_what_a_file_lacks_is_named_and_nothing_is_written(
    fault: str, weights: dict[str, Tensor], tmp_path: Path
) -> None:
    change, message = FAULTS[fault]
    source = tmp_path / 'e.ckpt'
    torch.save({'state_dict': change(weights)}, source)
    with pytest.raises(ConversionError, match=message):
        convert_nanodet(source, tmp_path / 'f.pth')
    assert [each.name for each in tmp_path.iterdir()] == ['e.ckpt']


class Harmful:
    """Object whose loading would run code."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return print, ('ran',)


@pytest.mark.parametrize('kind', ['cut', 'text', 'absent', 'harmful', 'itself'])
def test_the_tool_names_bad_files_in_a_line(
    kind: str,
    weights: dict[str, Tensor],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source, out = tmp_path / 'g.ckpt', tmp_path / 'h.pth'
    if kind == 'text':
        source.write_text('no checkpoint')
    elif kind != 'absent':
        saved(source, weights, 'model.', extra=Harmful() if kind == 'harmful' else None)
    if kind == 'cut':
        source.write_bytes(source.read_bytes()[:5000])
    if kind == 'itself':
        out = source
    before = source.read_bytes() if source.exists() else b''
    code = load_tool('train/convert_checkpoint.py').main(['nanodet', str(source), str(out)])
    said = capsys.readouterr()
    assert code == 2 and said.out == ''
    assert said.err.startswith('error: ') and 'g.ckpt' in said.err and said.err.count('\n') == 1
    assert 'harmful' != kind or 'was refused' in said.err
    assert out.exists() is (kind == 'itself')
    assert before == (source.read_bytes() if source.exists() else b'')


def test_the_tool_converts(
    weights: dict[str, Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = saved(tmp_path / 'i.ckpt', weights, 'model.', 'avg_model.'), tmp_path / 'j.pth'
    words = ['nanodet', str(source), str(out), '--weights', 'trained']
    assert load_tool('train/convert_checkpoint.py').main(words) == 0
    assert 'the trained weights of i.ckpt' in capsys.readouterr().out
    state = torch.load(out, weights_only=True)['state_dict']
    assert torch.equal(state['bbox_head.gfl_cls.2.bias'], weights['head.gfl_cls.2.bias'])
