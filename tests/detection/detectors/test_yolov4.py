"""YOLOv4: equality with Darknet's list of layers, weights that are read back, the converter."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.runner import load_checkpoint
from torch import Tensor
from torch.nn.functional import conv2d, max_pool2d

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
            if value.dim() == 4:
                value.copy_(torch.randn(value.shape) / value[0].numel() ** 0.5)
            elif value.is_floating_point():
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


#: A layer: its kind, and its numbers.
Layer = tuple[Any, ...]


def darknet_list(narrower: int, out: int) -> Iterator[Layer]:
    """Yield the layers of the published configuration, in its order and with its routes.

    Args:
        narrower: divisor of all channels but those of the last convolutions.
        out: channels of the last convolutions.
    """

    def conv(channels: int, size: int, stride: int = 1, activation: str = 'leaky') -> Layer:
        return 'conv', channels // narrower, size, stride, activation

    def alternate(channels: int, count: int) -> Iterator[Layer]:
        for number in range(count):
            yield conv(channels * (1 + number % 2), 1 + 2 * (number % 2))

    yield conv(32, 3, 1, 'mish')
    for channels, count in ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4)):
        half = 64 if channels == 64 else channels // 2
        yield conv(channels, 3, 2, 'mish')
        yield conv(half, 1, 1, 'mish')
        yield 'route', -2
        yield conv(half, 1, 1, 'mish')
        for _ in range(count):
            yield conv(channels // 2, 1, 1, 'mish')
            yield conv(half, 3, 1, 'mish')
            yield 'shortcut', -3
        yield conv(half, 1, 1, 'mish')
        yield 'route', -1, -4 - 3 * count
        yield conv(channels, 1, 1, 'mish')
    yield from alternate(512, 3)
    yield from (('maxpool', 5), ('route', -2), ('maxpool', 9), ('route', -4), ('maxpool', 13))
    yield 'route', -1, -3, -5, -6
    yield from alternate(512, 3)
    for channels, source in ((256, 85), (128, 54)):
        yield conv(channels, 1)
        yield ('upsample',)
        yield 'route', source
        yield conv(channels, 1)
        yield 'route', -1, -3
        yield from alternate(channels, 5)
    for channels, source in ((128, None), (256, -16), (512, -37)):
        if source is not None:
            yield 'route', -4
            yield conv(channels, 3, 2)
            yield 'route', -1, source
            yield from alternate(channels, 5)
        yield conv(2 * channels, 3)
        yield 'last', out
        yield ('yolo',)


class SlowDarknet:
    """Interpreter of a list of layers that takes the numbers of a file one after the other."""

    def __init__(self, numbers: np.ndarray) -> None:
        self.numbers, self.place = torch.from_numpy(numbers.copy()), 0

    def take(self, *shape: int) -> Tensor:
        count = int(np.prod(shape))
        self.place += count
        return self.numbers[self.place - count : self.place].view(shape)

    def convolved(self, x: Tensor, channels: int, size: int, stride: int, kind: str) -> Tensor:
        bias, gain, mean, var = (self.take(channels)[:, None, None] for _ in range(4))
        x = conv2d(x, self.take(channels, x.shape[1], size, size), None, stride, size // 2)
        x = (x - mean) / (var + 1e-5).sqrt() * gain + bias
        return x * torch.tanh(x.exp().log1p()) if kind == 'mish' else torch.maximum(x, x / 10)

    def layer(self, kind: str, numbers: tuple[Any, ...], done: list[Tensor]) -> Tensor:
        x = done[-1]
        if kind == 'conv':
            return self.convolved(x, *numbers)
        if kind == 'last':
            bias = self.take(*numbers)
            return conv2d(x, self.take(*numbers, x.shape[1], 1, 1), bias)
        if kind == 'shortcut':
            return x + done[numbers[0]]
        if kind == 'route':  # an absolute number counts from the first layer behind the image
            return torch.cat([done[n + 1 if n > 0 else n] for n in numbers], 1)
        if kind == 'maxpool':
            return max_pool2d(x, numbers[0], 1, numbers[0] // 2)
        if kind == 'upsample':
            return x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        return x

    def __call__(self, layers: Iterator[Layer], images: Tensor) -> list[Tensor]:
        done, found = [images], []
        for kind, *numbers in layers:
            done.append(self.layer(kind, tuple(numbers), done))
            if kind == 'yolo':
                found.append(done[-1])
        assert self.place == len(self.numbers)
        return found


def test_the_network_is_that_of_the_published_configuration(tmp_path: Path) -> None:
    """Layer by layer, with the numbers of the written file."""
    config = yolov4()
    config['backbone']['width'] = 1 / 4
    config['neck']['in_channels'] = (64, 128, 256)
    config['bbox_head'].update(in_channels=[128, 64, 32], out_channels=[256, 128, 64])
    model = build(config=config)
    model.save_darknet(tmp_path / 'a.weights')
    slow = SlowDarknet(np.fromfile(tmp_path / 'a.weights', '<f4', offset=20))
    images = torch.randn(2, 3, 64, 96)
    expected = slow(darknet_list(4, 2 * (5 + 4)), images)
    (found,) = model._forward(images)
    assert [each.shape[-2:] for each in expected] == [(8, 12), (4, 6), (2, 3)]
    for one, other in zip(reversed(found), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
        assert other.abs().max() > 0.1


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    source, other = build(0), build(1)
    source.save_darknet(tmp_path / 'a.weights', seen=6400)
    assert other.load_darknet(tmp_path / 'a.weights') == 6400
    images = torch.randn(1, 3, 64, 64)
    for one, two in zip(source._forward(images)[0], other._forward(images)[0], strict=True):
        assert torch.equal(one, two)
    states = source.state_dict(), other.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


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
