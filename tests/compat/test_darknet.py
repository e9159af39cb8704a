"""Files of weights of Darknet: order of the numbers, both headers, files that do not fit."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mmdet_ext.compat.darknet import darknet_layers, load_darknet, save_darknet
from mmdet_ext.compat.weights import ConversionError


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


@pytest.mark.parametrize(
    ('layer', 'message'),
    [
        (nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)), 'both a bias and a batch norm'),
        (nn.Conv2d(1, 2, 1, bias=False), 'neither a bias nor a batch norm'),
        (
            nn.Sequential(
                nn.Conv2d(1, 2, 1, bias=False), nn.BatchNorm2d(2, track_running_stats=False)
            ),
            'no running statistics',
        ),
    ],
)
def test_a_layer_that_darknet_has_not_is_refused(
    layer: nn.Module, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConversionError, match=message):
        save_darknet(tmp_path / 'e.weights', darknet_layers(layer))
    assert not (tmp_path / 'e.weights').exists()
