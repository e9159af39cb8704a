"""Files of OpenVINO and ncnn: full precision, and networks that they compute otherwise."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from mmdet_ext.deploy.runtimes import open_model
from mmdet_ext.export.onnx_file import ExportError
from mmdet_ext.export.targets import to_openvino, write_ncnn, write_openvino
from mmdet_ext.functional.yolo.v1 import decode_yolov1, split_yolov1
from tests._helpers.model_files import BOXES, INFO, SCORES, SIDE, fixed_network

IMAGES = torch.zeros(1, 3, SIDE, SIDE)


def test_openvino_keeps_all_digits_of_the_weights(tmp_path: Path) -> None:
    pytest.importorskip('openvino')
    boxes = BOXES + np.float32(1e-4)  # digits that half precision does not have
    write_openvino(to_openvino(fixed_network(boxes, SCORES)), INFO, tmp_path / 'x.xml')
    found = open_model(tmp_path / 'x.xml').run({'images': IMAGES.numpy()})
    np.testing.assert_array_equal(found['boxes'][0], boxes)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['x.bin', 'x.xml']


def test_an_antialiased_resize_is_refused_for_openvino() -> None:
    pytest.importorskip('openvino')
    model = fixed_network()
    model.graph.node.append(
        helper.make_node('Resize', ['images', '', '', 'sizes'], ['small'], antialias=1)
    )
    model.graph.initializer.append(
        helper.make_tensor('sizes', TensorProto.INT64, [4], [1, 3, 8, 8])
    )
    onnx.checker.check_model(model)
    with pytest.raises(ExportError, match='resize with antialias.*by up to 0.33'):
        to_openvino(model)


class Rows(nn.Module):
    """Network of boxes and scores, by a function of the tests."""

    def __init__(self, chooses: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 8, 8)
        self.chooses = chooses

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        rows = self.conv(images).permute(0, 2, 3, 1)
        if self.chooses:
            rows = torch.where(rows > 0.1, rows, rows * 0 + 0.1)
        table = rows.reshape(1, -1, 6)
        return table[..., :4], table[..., 4:].sigmoid()


@pytest.mark.slow
def test_ncnn_computes_in_float32_and_names_its_outputs(tmp_path: Path) -> None:
    pytest.importorskip('ncnn')
    pytest.importorskip('pnnx')
    torch.manual_seed(0)
    network = Rows().eval()
    info = dataclasses.replace(INFO, level_sizes=(16,))
    write_ncnn(network, IMAGES, info, tmp_path / 'x.param')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['x.bin', 'x.param']
    images = torch.randn(1, 3, SIDE, SIDE)
    found = open_model(tmp_path / 'x.param').run({'images': images.numpy()})
    with torch.no_grad():
        for name, expected in zip(('boxes', 'scores'), network(images), strict=True):
            torch.testing.assert_close(torch.from_numpy(found[name]), expected, atol=2e-6, rtol=0)
    with pytest.raises(ValueError, match='takes one image of'):
        open_model(tmp_path / 'x.param').run({'images': np.zeros((1, 3, 16, 16), np.float32)})


@pytest.mark.slow
def test_a_network_of_layers_that_ncnn_lacks_is_refused(tmp_path: Path) -> None:
    pytest.importorskip('ncnn')
    pytest.importorskip('pnnx')
    info = dataclasses.replace(INFO, level_sizes=(16,))
    with pytest.raises(ExportError, match='it has no layer .*torch.where'):
        write_ncnn(Rows(chooses=True).eval(), IMAGES, info, tmp_path / 'x.param')
    assert list(tmp_path.iterdir()) == []


class Cells(nn.Module):
    """Network that reads the numbers of each cell as a table of five axes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 12, 8, 8)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        cells = split_yolov1(self.conv(images).permute(0, 2, 3, 1))
        scores = cells.confidence.clamp(0, 1)[..., None] * cells.classes.clamp(0, 1)[..., None, :]
        return decode_yolov1(cells.boxes).flatten(1, 3), scores.flatten(1, 3)


@pytest.mark.slow
def test_a_network_that_ncnn_computes_otherwise_is_refused(tmp_path: Path) -> None:
    pytest.importorskip('ncnn')
    pytest.importorskip('pnnx')
    torch.manual_seed(0)
    info = dataclasses.replace(INFO, level_sizes=(32,))
    with pytest.raises(ExportError, match='ncnn (computes other|returns)'):
        write_ncnn(Cells().eval(), IMAGES, info, tmp_path / 'x.param')
    assert list(tmp_path.iterdir()) == []
