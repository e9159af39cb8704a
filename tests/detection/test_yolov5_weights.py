"""Conversion of files of YOLOv5: outputs of a network written out, names, files that do not fit."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.runner import load_checkpoint
from torch import Tensor, nn

from mmdet_ext.compat.weights import ConversionError
from mmdet_ext.detection.yolov5 import convert_yolov5
from mmdet_ext.registry import MODELS
from tests._helpers.tools import load_tool
from tests.compat.yolov5_files import ANCHORS, Conv, elsewhere, network, save

tool = load_tool('train/convert_checkpoint.py')
IMAGES = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))


def ours(depth: float = 0.33, width: float = 0.25, classes: int = 3) -> nn.Module:
    """Build the same network of our parts, as a detector has them."""
    channels = [int(width * each) for each in (256, 512, 1024)]
    parts = dict(
        backbone=dict(type='YOLOv5Backbone', depth=depth, width=width),
        neck=dict(type='YOLOv5Neck', in_channels=channels, depth=depth),
        bbox_head=dict(
            type='YOLOv5Head', num_classes=classes, in_channels=channels, anchors=ANCHORS
        ),
    )
    built = {
        name: MODELS.build({**options, 'type': f'mmdet_ext.{options["type"]}'})
        for name, options in parts.items()
    }
    return nn.ModuleDict(built).eval()


def outputs(model: Any) -> list[Tensor]:
    with torch.no_grad():
        (found,) = model['bbox_head'](model['neck'](model['backbone'](IMAGES)))
    return list(found)


def mmyolo_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of a network as MMYOLO's converter does."""
    layers = {
        '0': 'backbone.stem',
        **{str(1 + 2 * s): f'backbone.stage{s + 1}.0' for s in range(4)},
        **{str(2 + 2 * s): f'backbone.stage{s + 1}.1' for s in range(4)},
        '9': 'backbone.stage4.2',
        '10': 'neck.reduce_layers.2',
        '13': 'neck.top_down_layers.0.0',
        '14': 'neck.top_down_layers.0.1',
        '17': 'neck.top_down_layers.1',
        '18': 'neck.downsample_layers.0',
        '20': 'neck.bottom_up_layers.0',
        '21': 'neck.downsample_layers.1',
        '23': 'neck.bottom_up_layers.1',
        '24': 'bbox_head.head_module.convs_pred',
    }
    outer = {'cv1': 'main_conv', 'cv2': 'short_conv', 'cv3': 'final_conv', 'm': 'blocks'}
    found = {}
    for name, value in weights.items():
        _, number, *rest = name.split('.')
        if rest[0] == 'anchors':
            continue
        if number == '24':
            rest = rest[1:]
        elif number == '9':
            rest[0] = rest[0].replace('cv', 'conv')
        else:
            rest = [outer.get(rest[0], rest[0])] + [each.replace('cv', 'conv') for each in rest[1:]]
        found['.'.join([layers[number], *rest])] = value
    return found


FORMS = {
    'object': lambda model: {'model': copy.deepcopy(model), 'ema': None, 'epoch': 1},
    'averaged': lambda model: {'model': network(seed=9), 'ema': copy.deepcopy(model)},
    'bare object': copy.deepcopy,
    'state dict': lambda model: model.state_dict(),
    'in parallel': lambda model: {
        'model': {f'module.model.{name}': value for name, value in model.state_dict().items()}
    },
    'MMYOLO': lambda model: {'meta': {}, 'state_dict': mmyolo_names(model.state_dict())},
}


@pytest.mark.parametrize('form', FORMS)
def test_every_form_gives_the_outputs_of_the_network(form: str, tmp_path: Path) -> None:
    reference = network()
    source = save(FORMS[form](reference), tmp_path / 'in.pt')
    lines = convert_yolov5(source, tmp_path / 'out.pth')
    assert 'YOLOv5n with 3 classes' in lines and 'set model.bbox_head.num_classes=3' in lines
    model = ours()
    checkpoint = load_checkpoint(model, str(tmp_path / 'out.pth'), strict=True)
    with torch.no_grad():
        expected = reference(IMAGES)
    for own, wanted in zip(outputs(model), expected, strict=True):
        torch.testing.assert_close(own, wanted)
    assert set(model.state_dict()) == set(checkpoint['state_dict'])
    meta = checkpoint['meta']
    if form == 'MMYOLO':
        assert 'anchors' not in meta and 'has no anchors' in lines
    else:
        assert meta['anchors'] == [[list(pair) for pair in level] for level in ANCHORS]
        assert f'set model.bbox_head.anchors={meta["anchors"]}' in lines
    whole = 'object' in form or form == 'averaged'
    assert ('dataset_meta' in meta) is whole
    assert not whole or meta['dataset_meta']['classes'] == ('class 0', 'class 1', 'class 2')


def test_half_precision_becomes_float32(tmp_path: Path) -> None:
    reference = network().half()
    convert_yolov5(save({'model': reference}, tmp_path / 'a.pt'), tmp_path / 'b.pth')
    found = torch.load(tmp_path / 'b.pth', weights_only=True)['state_dict']
    assert {value.dtype for value in found.values()} == {torch.float32, torch.int64}
    model = ours()
    model.load_state_dict(found)
    with torch.no_grad():
        expected = reference.float()(IMAGES)
    for own, wanted in zip(outputs(model), expected, strict=True):
        torch.testing.assert_close(own, wanted)


def test_another_depth_and_width_are_inferred(tmp_path: Path) -> None:
    reference = network(width=0.5, blocks=(2, 4, 6, 2, 2), classes=2)
    lines = convert_yolov5(save(reference, tmp_path / 'a.pt'), tmp_path / 'b.pth')
    assert 'YOLOv5 with depth=0.67 and width=0.5 with 2 classes' in lines
    model = ours(0.67, 0.5, 2)
    load_checkpoint(model, str(tmp_path / 'b.pth'), strict=True)
    with torch.no_grad():
        expected = reference(IMAGES)
    for own, wanted in zip(outputs(model), expected, strict=True):
        torch.testing.assert_close(own, wanted)


def without(name: str) -> dict[str, Tensor]:
    return {key: value for key, value in network().state_dict().items() if not key.startswith(name)}


def with_focus() -> Any:
    model = network()
    stem = nn.Module()
    stem.conv = Conv(12, 16, 3)
    model.model[0] = stem
    return model.state_dict()


def changed(name: str, value: Tensor) -> dict[str, Tensor]:
    return {**network().state_dict(), name: value}


BAD = {
    'focus': (with_focus, 'begins with a Focus layer: it has the layout of release 5'),
    'four levels': (
        lambda: changed('model.33.m.0.weight', torch.ones(1)),
        r'has four levels \(P6\)',
    ),
    'masks': (lambda: changed('model.24.proto.cv1.conv.weight', torch.ones(1)), 'segments'),
    'classes of images': (lambda: changed('model.9.linear.weight', torch.ones(1)), 'classifies'),
    'version 8': (lambda: changed('model.22.dfl.conv.weight', torch.ones(1)), 'has no anchors'),
    'fused': (lambda: changed('model.0.conv.bias', torch.ones(16)), 'norms fused'),
    'no head': (lambda: without('model.24'), 'has no bbox_head.convs_pred.0.weight'),
    'a stage too few': (lambda: without('model.8'), r'has \[1, 2, 3, 0, 1\] residual blocks'),
    'a layer too few': (
        lambda: without('model.18'),
        r'neck.halves.*: 6 missing in the file|neck.halves.*missing in the file',
    ),
    'another shape': (
        lambda: changed('model.18.conv.weight', torch.ones(64, 64, 1, 1)),
        r'neck.halves.0.conv.weight: \(64, 64, 1, 1\) in the file, \(64, 64, 3, 3\) in the model',
    ),
    'a head of another shape': (
        lambda: changed('model.24.m.0.weight', torch.ones(17, 64, 1, 1)),
        '17 numbers per cell in its head, no multiple of 3 anchors',
    ),
    'not finite': (
        lambda: changed('model.1.conv.weight', torch.full((32, 16, 3, 3), torch.nan)),
        'numbers that are not finite in backbone.stages.1.0.conv.weight',
    ),
    'another network': (
        lambda: {'backbone.conv1.weight': torch.ones(1)},
        'weights of another network: 1 of them .*backbone.conv1.weight',
    ),
    'no tensors': (lambda: {'a': 1}, 'entries that are no tensors: a'),
    'a list': (lambda: [torch.ones(1)], 'holds a list, expected a network'),
}


@pytest.mark.parametrize('kind', BAD)
def test_what_does_not_fit_is_named_and_nothing_is_written(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, message = BAD[kind]
    source, out = save(make(), tmp_path / 'a.pt'), tmp_path / 'new' / 'b.pth'
    with pytest.raises(ConversionError, match=message):
        convert_yolov5(source, out)
    assert tool.main(['yolov5', str(source), str(out)]) == 2
    assert capsys.readouterr().err.startswith('error: ')
    assert not out.exists() and not out.parent.exists()


def test_the_tool_converts_and_refuses_to_write_over_its_source(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = save({'model': network()}, tmp_path / 'a.pt')
    before = source.read_bytes()
    assert tool.main(['yolov5', str(source), str(source)]) == 2
    assert 'would be written over' in capsys.readouterr().err and source.read_bytes() == before
    assert tool.main(['yolov5', str(source), str(tmp_path / 'b.pth')]) == 0
    assert 'YOLOv5n with 3 classes, 348 tensors' in capsys.readouterr().out
    assert tool.main(['yolov5', str(tmp_path / 'none.pt'), str(tmp_path / 'c.pth')]) == 2
    assert 'there is no file' in capsys.readouterr().err


def test_a_file_of_an_unknown_class_is_no_network(tmp_path: Path) -> None:
    class Thing:
        pass

    Thing.__qualname__ = 'Thing'
    path = tmp_path / 'a.pt'
    with elsewhere(Thing):
        torch.save({'model': Thing()}, path)
    with pytest.raises(ConversionError, match='models.common.Thing is no module of torch'):
        convert_yolov5(path, tmp_path / 'b.pth')
