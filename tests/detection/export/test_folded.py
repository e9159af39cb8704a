"""Detectors exported with batch norms folded and branches merged, against those without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from mmdet_ext.deploy import Detector
from mmdet_ext.detection.export.network import DetectorNetwork
from mmdet_ext.export.folding import fold_network
from tests._helpers.exported import built, config_of, difference, export, image_files, model_config

pytest.importorskip('onnxscript')
pytest.importorskip('onnxruntime')

#: Norms that are folded and kept, and modules with merged branches.
COUNTS = {'ATSSHead': (20, 0, 0), 'RTMDetSepBNHead': (20, 6, 0), 'RepVGG': (0, 0, 1)}


def detector(kind: str) -> dict[str, Any]:
    """Return the config of a small detector by its head, or one with a RepVGG."""
    if kind != 'RepVGG':
        return model_config(kind)
    pytest.importorskip('mmpretrain.models')
    arch = dict(num_blocks=[1, 2, 1, 1], width_factor=[0.5] * 4, group_layer_map=None, se_cfg=None)
    model = model_config('ATSSHead')
    model['backbone'] = dict(
        type='mmpretrain.RepVGG', arch=arch, base_channels=8, out_indices=(0, 1, 2, 3)
    )
    return model


@pytest.mark.slow
@pytest.mark.parametrize('kind', COUNTS)
def test_a_folded_file_finds_what_the_unfolded_one_finds(kind: str, tmp_path: Path) -> None:
    config = config_of(detector(kind))
    model = built(config)
    files = image_files(tmp_path, ((90, 120), (140, 70)))
    info = export(model, config, tmp_path / 'folded.onnx', size=(128, 128), fold=True)
    plain = export(model, config, tmp_path / 'plain.onnx', size=(128, 128))
    folded, kept, merged = COUNTS[kind]
    assert 'folded' not in plain.made_of
    assert info.made_of['folded'].startswith(
        f'modules with merged branches: {merged}; batch norms folded: {folded}, kept: {kept}'
    )
    # torch runs the detector as it was: the export folds a copy.
    found = difference(model, config, tmp_path / 'folded.onnx', files)
    assert found.equal and found.detections > 5, found.lines()
    ours, theirs = (
        Detector(tmp_path / name, threads=1)(files) for name in ('folded.onnx', 'plain.onnx')
    )
    for one, other in zip(ours, theirs, strict=True):
        assert one.labels.tolist() == other.labels.tolist()
        assert abs(one.scores - other.scores).max() <= 1e-4 * other.scores.max()
        assert abs(one.boxes - other.boxes).max() <= 1e-4 * abs(other.boxes).max()
    nodes = onnx.load(tmp_path / 'folded.onnx').graph.node
    assert sum(node.op_type == 'BatchNormalization' for node in nodes) == kept


@pytest.mark.parametrize('kind', COUNTS)
def test_priors_of_a_folded_detector_are_equal_in_double_precision(kind: str) -> None:
    network = DetectorNetwork(built(config_of(detector(kind)))).eval().double()
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, 96, 128, generator=generator, dtype=torch.float64)
    before = network(images)
    found = fold_network(network, images)
    assert (len(found.folded), len(found.kept), len(found.merged)) == COUNTS[kind]
    for old, new in zip(before, network(images), strict=True):
        assert old.dtype == torch.float64
        assert (new - old).abs().max() <= 1e-10 * old.abs().max()
