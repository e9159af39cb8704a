"""Tests of converted checkpoints: outputs are equal to those of the source."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.registry import DefaultScope
from mmengine.runner import load_checkpoint
from torch import nn

from mmdet_ext.face.backbones import IResNet
from tests.face.insightface_networks import BLOCKS, convert, images, network, saved

WRAPPINGS: dict[str, Any] = {
    'plain': lambda state: state,
    'of distributed training': lambda state: {f'module.{k}': v for k, v in state.items()},
    'of a whole model': lambda state: {f'backbone.{k}': v for k, v in state.items()},
    'of both': lambda state: {f'module.backbone.{k}': v for k, v in state.items()},
    'training state': lambda state: {
        'epoch': 3,
        'global_step': 7,
        'state_dict_backbone': state,
        'state_dict_softmax_fc': {'weight': torch.ones(5, 16)},
        'state_optimizer': {'state': {}},
    },
    'parameters': lambda state: {k: nn.Parameter(v, False) for k, v in state.items()},
}


@pytest.mark.parametrize('wrapping', WRAPPINGS)
def test_outputs_are_equal_for_every_form_of_the_file(wrapping: str, tmp_path: Path) -> None:
    source = network()
    path = saved(WRAPPINGS[wrapping](source.state_dict()), tmp_path / 'in.pth')
    assert convert(path, tmp_path / 'out.pth') == 0
    model = IResNet(
        18,
        16,
        input_size=32,
        base_channels=8,
        init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'out.pth'), prefix='backbone.'),
    )
    model.init_weights()
    torch.testing.assert_close(model.eval()(images())[-1], source(images()))


@pytest.mark.parametrize('depth', BLOCKS)
def test_depth_is_inferred_and_a_model_of_mmpretrain_loads_it(depth: int, tmp_path: Path) -> None:
    from mmpretrain.models import ImageClassifier

    source = network(depth)
    path = saved(source.state_dict(), tmp_path / 'in.pth')
    assert convert(path, tmp_path / 'new' / 'out.pth') == 0
    backbone = IResNet(depth, 16, input_size=32, base_channels=8)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = ImageClassifier(backbone=backbone, neck=None, head=None)
    checkpoint = load_checkpoint(model, str(tmp_path / 'new' / 'out.pth'), strict=True)
    torch.testing.assert_close(model.eval().extract_feat(images())[-1], source(images()))
    meta = checkpoint['meta']
    assert meta['backbone'] == dict(
        type='mmdet_ext.IResNet', depth=depth, num_features=16, input_size=32, base_channels=8
    )
    assert (meta['mean'], meta['std'], meta['to_rgb']) == (127.5, 127.5, True)
    assert meta['source_file'] == 'in.pth'
    assert meta['source_sha256'] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_summary_shows_the_lines_of_a_config(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = network()
    assert convert(saved(source.state_dict(), tmp_path / 'in.pth'), tmp_path / 'out.pth') == 0
    said = capsys.readouterr().out
    count = sum(p.numel() for p in source.parameters())
    assert f'IResNet-18: {count:,} parameters, 16 numbers an embedding, images of 32 x 32' in said
    assert "FaceDataPreprocessor', std=127.5)" in said
    assert 'depth=18, num_features=16, input_size=32, base_channels=8' in said


def test_half_precision_and_absent_counters_are_converted(tmp_path: Path) -> None:
    """Accept files of old versions of torch, which wrote no counters of batches."""
    source = network()
    state = {
        key: value.half()
        for key, value in source.state_dict().items()
        if not key.endswith('num_batches_tracked')
    }
    assert convert(saved(state, tmp_path / 'in.pth'), tmp_path / 'out.pth') == 0
    written = torch.load(tmp_path / 'out.pth', weights_only=True)['state_dict']
    for key, value in source.state_dict().items():
        expected = value.half().float() if value.is_floating_point() else torch.tensor(0)
        assert written[f'backbone.{key}'].equal(expected), key
        assert written[f'backbone.{key}'].dtype == value.dtype
    assert len(written) == len(source.state_dict())


def test_prefix_and_size_can_be_chosen(tmp_path: Path) -> None:
    source = network(cells=6)
    path, out = saved(source.state_dict(), tmp_path / 'in.pth'), tmp_path / 'out.pth'
    assert convert(path, out, '--prefix', '', '--input-size', 40, 24, '--depth', 18) == 0
    checkpoint = torch.load(out, weights_only=True)
    assert checkpoint['meta']['backbone']['input_size'] == (40, 24)
    model = IResNet(18, 16, input_size=(40, 24), base_channels=8).eval()
    model.load_state_dict(checkpoint['state_dict'])
    torch.testing.assert_close(model(images(40, 24))[-1], source(images(40, 24)))


def test_centres_of_all_ranks_keep_their_order(tmp_path: Path) -> None:
    path = saved(network().state_dict(), tmp_path / 'in.pth')
    centres = torch.randn(9, 16)
    ranks = [
        saved({'state_dict_softmax_fc': {'weight': centres[:5]}}, tmp_path / 'rank0.pt'),
        saved(centres[5:7], tmp_path / 'rank1.pt'),
        saved({'weight': nn.Parameter(centres[7:])}, tmp_path / 'rank2.pt'),
    ]
    assert convert(path, tmp_path / 'out.pth', '--centres', *ranks) == 0
    checkpoint = torch.load(tmp_path / 'out.pth', weights_only=True)
    assert checkpoint['state_dict']['head.weight'].equal(centres)
    assert checkpoint['meta']['num_classes'] == 9


def test_head_loads_the_centres(tmp_path: Path) -> None:
    from mmpretrain.models import ImageClassifier

    source, centres = network(), torch.randn(9, 16)
    path = saved(source.state_dict(), tmp_path / 'in.pth')
    out, file = tmp_path / 'out.pth', saved(centres, tmp_path / 'centres.pt')
    assert convert(path, out, '--centres', file) == 0
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = ImageClassifier(
            backbone=IResNet(18, 16, input_size=32, base_channels=8),
            head=dict(
                type='mmdet_ext.MarginHead',
                num_classes=9,
                in_channels=16,
                margin=dict(type='CosFace', m=0.4),
                scale=64.0,
            ),
        ).eval()
    load_checkpoint(model, str(out), strict=True)
    found = model(images(), mode='tensor')
    expected = 64 * nn.functional.normalize(source(images())) @ nn.functional.normalize(centres).T
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)
