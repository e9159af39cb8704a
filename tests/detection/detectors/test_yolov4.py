"""YOLOv4: the order of Darknet's file, weights that are read back, files that do not fit."""

from __future__ import annotations

import copy
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.runner import load_checkpoint
from torch import nn

from mmdet_ext.compat.darknet import darknet_layers, load_darknet, save_darknet
from mmdet_ext.compat.weights import ConversionError
from mmdet_ext.registry import MODELS
from tests._helpers.configs import CONFIGS
from tests._helpers.tools import load_tool
from tests.hosts.yolo_detectors import yolov1, yolov4

PUBLISHED = CONFIGS / 'detection' / 'yolo' / 'yolov4_csp_darknet53_608_coco.py'


def build(seed: int = 0, config: dict[str, Any] | None = None) -> Any:
    """Build a small detector whose weights and statistics are all random."""
    torch.manual_seed(seed)
    model = MODELS.build(ConfigDict(copy.deepcopy(config or yolov4())))
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.copy_(torch.rand(value.shape) + 0.5)
    return model.eval()


#: Channels out, kernel and stride of the first convolutions of the published configuration, of
#: those around the neck, and of the last ones; and the places of those without a batch norm.
FIRST = [(32, 3, 1), (64, 3, 2), (64, 1, 1), (64, 1, 1), (32, 1, 1), (64, 3, 1), (64, 1, 1)]
FIRST += [(64, 1, 1), (128, 3, 2), (64, 1, 1), (64, 1, 1), (64, 1, 1), (64, 3, 1)]
NECK = [(1024, 1, 1), (512, 1, 1), (1024, 3, 1), (512, 1, 1), (512, 1, 1), (1024, 3, 1)]
NECK += [(512, 1, 1), (256, 1, 1), (256, 1, 1), (256, 1, 1), (512, 3, 1), (256, 1, 1)]
LAST = [(512, 3, 1), (255, 1, 1), (512, 3, 2), (512, 1, 1), (1024, 3, 1), (512, 1, 1)]
LAST += [(1024, 3, 1), (512, 1, 1), (1024, 3, 1), (255, 1, 1)]


def published() -> Any:
    with torch.device('meta'):
        return MODELS.build(Config.fromfile(PUBLISHED).model)


def test_layers_stand_in_the_order_of_the_published_configuration() -> None:
    layers = published().layers()
    shapes = [(conv.out_channels, conv.kernel_size[0], conv.stride[0]) for conv, _ in layers]
    assert len(layers) == 110
    assert shapes[:13] == FIRST
    assert shapes[71:83] == NECK
    assert shapes[-10:] == LAST
    assert [i for i, (_, norm) in enumerate(layers) if norm is None] == [93, 101, 109]


def test_the_published_file_has_as_many_numbers() -> None:
    """yolov4.weights has 257,717,640 bytes, 20 of them the header."""
    count = 0
    for conv, norm in published().layers():
        count += conv.weight.numel() + conv.out_channels * (1 if norm is None else 4)
    assert 20 + 4 * count == 257_717_640


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    source, other = build(0), build(1)
    source.save_darknet(tmp_path / 'a.weights', seen=6400)
    assert other.load_darknet(tmp_path / 'a.weights') == 6400
    images = torch.randn(1, 3, 64, 64)
    for one, two in zip(source._forward(images)[0], other._forward(images)[0], strict=True):
        assert torch.equal(one, two)
    states = source.state_dict(), other.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_the_file_holds_bias_gain_mean_variance_and_weights(tmp_path: Path) -> None:
    layer = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.BatchNorm2d(2))
    plain = nn.Conv2d(2, 1, 1)
    numbers = np.arange(1, 14, dtype='<f4')
    path = tmp_path / 'b.weights'
    path.write_bytes(struct.pack('<iiiQ', 0, 2, 5, 77) + numbers.tobytes())
    layers = darknet_layers(layer) + darknet_layers(plain)
    assert load_darknet(path, layers) == 77
    assert layer[1].bias.tolist() == [1, 2] and layer[1].weight.tolist() == [3, 4]
    assert layer[1].running_mean.tolist() == [5, 6] and layer[1].running_var.tolist() == [7, 8]
    assert layer[0].weight.flatten().tolist() == [9, 10]
    assert plain.bias.tolist() == [11] and plain.weight.flatten().tolist() == [12, 13]
    save_darknet(tmp_path / 'c.weights', layers, 77)
    assert (tmp_path / 'c.weights').read_bytes()[20:] == numbers.tobytes()
    # Before version 0.2 the count of images has 32 bits.
    path.write_bytes(struct.pack('<iiii', 0, 1, 0, 5) + numbers.tobytes())
    assert load_darknet(path, layers) == 5


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'', 'has 0 bytes, less than a header of 20'),
        (b'\0' * 60, 'holds 11 numbers behind its header of 16 bytes, but the 2 .* have 13'),
        (struct.pack('<iiiQ', 0, 2, 5, 0) + b'\0' * 55, 'holds 13 numbers and 3 bytes'),
        (
            struct.pack('<iiiQ', 0, 2, 5, 0) + np.full(13, np.nan, '<f4').tobytes(),
            'not finite: it is damaged',
        ),
    ],
)
def test_a_file_that_does_not_fit_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    layer = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.BatchNorm2d(2))
    before = layer[0].weight.clone()
    path = tmp_path / 'd.weights'
    path.write_bytes(content)
    with pytest.raises(ConversionError, match=message):
        load_darknet(path, darknet_layers(layer) + darknet_layers(nn.Conv2d(2, 1, 1)))
    assert torch.equal(layer[0].weight, before)


def test_the_tool_converts_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main = load_tool('train/convert_checkpoint.py').main
    config = tmp_path / 'small.py'
    config.write_text(f'model = {yolov4()!r}\n')
    source = build(3)
    source.save_darknet(tmp_path / 'y.weights', seen=64)
    out = tmp_path / 'y.pth'
    arguments = ['darknet', config, tmp_path / 'y.weights', out]
    assert main([str(each) for each in arguments]) == 0
    assert '110 convolutions, trained on 64 images, for 4 classes' in capsys.readouterr().out
    other = build(4)
    load_checkpoint(other, str(out), strict=True)
    image = torch.randn(1, 3, 64, 64)
    assert torch.equal(source._forward(image)[0][0], other._forward(image)[0][0])
    config.write_text(f'model = {yolov1()!r}\n')
    assert main([str(each) for each in arguments]) == 2
    assert 'expected the detector mmdet_ext.YOLOV4' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(neck=None), 'neck must be mmdet_ext.YOLOV4Neck, got NoneType'),
        (
            dict(backbone=dict(type='mmdet_ext.Darknet19', width=1 / 32)),
            'backbone must be mmdet_ext.CSPDarknet53, got Darknet19',
        ),
        (
            dict(neck=dict(type='mmdet_ext.YOLOV4Neck', in_channels=(8, 16, 64))),
            r'in_channels must be \[32, 8, 4\], half of .* got \[16, 8, 4\]',
        ),
    ],
)
def test_parts_that_do_not_fit_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MODELS.build(ConfigDict({**yolov4(), **changes}))


def test_images_of_another_size_are_named() -> None:
    with pytest.raises(ValueError, match='64 x 80 px .* no multiples of 32'):
        build()._forward(torch.zeros(1, 3, 64, 80))
