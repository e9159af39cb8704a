"""Files of ONNX that torch's exporter is asked for, and what it is kept from."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

from mmdet_ext.export.onnx_file import ExportError, prediction_layers, to_onnx, write_onnx
from tests._helpers.model_files import INFO

pytest.importorskip('onnxscript')


class Small(nn.Module):
    """Two convolutions, and arithmetic behind them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.last = nn.Conv2d(4, 6, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.last(self.first(images).relu())
        return maps[:, :4].flatten(2), maps[:, 4:].sigmoid().flatten(2)


class Branching(nn.Module):
    """Network whose path depends on values."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if images.mean() > 0:
            return images, images
        return images + 1, images


class Fixing(nn.Module):
    """Network that makes a constant of its batch."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return images.reshape(len(images), -1), images


NAMES = ('boxes', 'scores')
IMAGES = {'images': torch.zeros(2, 3, 8, 8)}


@pytest.fixture(scope='module')
def model() -> onnx.ModelProto:
    return to_onnx(Small().eval(), IMAGES, NAMES)


@pytest.mark.slow
def test_weights_are_within_the_one_file(model: onnx.ModelProto, tmp_path: Path) -> None:
    write_onnx(model, tmp_path / 'x.onnx', INFO)
    (tmp_path / 'x.onnx').rename(tmp_path / 'y.onnx')
    assert [path.name for path in tmp_path.iterdir()] == ['y.onnx']
    read = onnx.load(tmp_path / 'y.onnx')
    onnx.checker.check_model(read, full_check=True)
    # The exporter notes the file and the line of the code that each node comes from.
    assert b'test_onnx_file' not in (tmp_path / 'y.onnx').read_bytes()
    assert sum(len(each.raw_data) for each in read.graph.initializer) >= 4 * (108 + 24)


@pytest.mark.slow
def test_layers_that_predict_and_what_follows_are_found(model: onnx.ModelProto) -> None:
    last, behind = prediction_layers(model)
    kinds = {node.name: node.op_type for node in model.graph.node}
    assert [kinds[name] for name in last] == ['Conv']
    assert 'Sigmoid' in {kinds[name] for name in behind}
    assert 'Relu' not in {kinds[name] for name in behind}


def test_an_opset_that_would_not_be_written_is_refused() -> None:
    for opset in (11, 13, 99):
        with pytest.raises(ExportError, match=f'opset must be in 18 .. 23, got {opset}'):
            to_onnx(Small(), IMAGES, NAMES, opset=opset)


@pytest.mark.slow
def test_the_opset_that_is_asked_for_is_written() -> None:
    found = to_onnx(Small().eval(), IMAGES, NAMES, opset=20)
    assert [each.version for each in found.opset_import if each.domain == ''] == [20]


@pytest.mark.slow
def test_a_network_that_cannot_be_traced_is_named() -> None:
    with pytest.raises(ExportError, match='cannot trace Branching'):
        to_onnx(Branching(), IMAGES, NAMES)


@pytest.mark.slow
def test_an_axis_that_would_be_fixed_in_silence_is_named() -> None:
    axes = {'images': {0: torch.export.Dim('batch')}}
    with pytest.raises(ExportError, match='cannot trace Fixing'):
        to_onnx(Fixing(), IMAGES, NAMES, axes)


def test_a_network_above_2_gb_is_named() -> None:
    large = nn.Linear(30_000, 20_000, bias=False, device='meta')
    with pytest.raises(ExportError, match='take 2.4 GB, and one ONNX file holds below 2.1 GB'):
        to_onnx(large, IMAGES, NAMES)
