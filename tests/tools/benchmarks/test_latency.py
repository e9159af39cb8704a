"""The tool that compares the latency of torch and of exported files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests._helpers.model_files import fixed_network, write_fixed
from tests._helpers.tools import load_tool

pytest.importorskip('onnxruntime')
pytest.importorskip('openvino')
main = load_tool('benchmarks/latency.py').main
CONFIG = Path(__file__).resolve().parents[3] / 'configs/zoo_small/atss_small_12e_shapes.py'


@pytest.mark.slow
@pytest.mark.subprocess
def test_all_contenders_run_side_by_side(tmp_path: Path, capsys: Any) -> None:
    write_fixed(tmp_path / 'x.onnx')
    (tmp_path / 'upstream.onnx').write_bytes(fixed_network().SerializeToString())
    (tmp_path / 'cut.onnx').write_bytes(b'cut')
    words = [CONFIG, '--files', tmp_path / 'x.onnx', '--size', 64, 96, '--threads', 1]
    words += ['--others', tmp_path / 'upstream.onnx', tmp_path / 'cut.onnx']
    words += ['--no-compile', '--rounds', 1, '--runs', 3, '--out', tmp_path / 'y.json']
    assert main([str(word) for word in words]) == 0
    found = json.loads((tmp_path / 'y.json').read_text())
    rows = {row['name']: row for row in found['rows']}
    assert {'torch', 'onnxruntime float32', 'upstream onnxruntime', 'upstream openvino'} <= set(
        rows
    )
    assert set(found['failed']) == {'cut onnxruntime', 'cut openvino'}
    assert rows['torch']['ratio'] == 1.0
    for row in rows.values():
        assert row['runs'] == 3 and 0 < row['median_ms'] and 0 < row['peak_mib']
    # A runtime's process holds neither torch nor mmdet.
    assert rows['onnxruntime float32']['peak_mib'] < rows['torch']['peak_mib'] / 2
    assert rows['onnxruntime float32']['megabytes'] == (tmp_path / 'x.onnx').stat().st_size / 1e6
    assert (tmp_path / 'y.png').read_bytes().startswith(b'\x89PNG')
    assert 'VNNI' in capsys.readouterr().out


def test_bad_input_is_named(tmp_path: Path, capsys: Any) -> None:
    assert main([str(CONFIG), '--files', str(tmp_path / 'x.onnx')]) == 2
    assert 'x.onnx: there is no such file' in capsys.readouterr().err
    assert main([str(CONFIG)]) == 2
    assert 'give --size HEIGHT WIDTH' in capsys.readouterr().err
