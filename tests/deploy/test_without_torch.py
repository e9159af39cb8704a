"""The deploy package where neither torch nor OpenMMLab can be imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests._helpers.model_files import write_fixed

#: Runs the command with imports of torch and OpenMMLab refused.
PROGRAM = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in ('torch', 'torchvision', 'mmdet', 'mmcv', 'mmengine',
                                      'mmpretrain', 'onnx'):
            raise ImportError(f'{name} is refused here')

sys.meta_path.insert(0, Refuse())
from mmdet_ext.deploy.__main__ import main
code = main(sys.argv[1:])
assert not {'torch', 'mmdet', 'mmcv', 'mmengine'} & set(sys.modules)
sys.exit(code)
"""


@pytest.mark.subprocess
@pytest.mark.parametrize('runtime', ['onnxruntime', 'openvino'])
def test_the_command_needs_neither_torch_nor_openmmlab(runtime: str, tmp_path: Path) -> None:
    pytest.importorskip(runtime)
    write_fixed(tmp_path / 'x.onnx')
    cv2.imwrite(str(tmp_path / 'a.png'), np.zeros((40, 60, 3), np.uint8))
    words = [str(tmp_path / 'x.onnx'), str(tmp_path / 'a.png'), '--out', str(tmp_path / 'out')]
    done = subprocess.run(
        [sys.executable, '-c', PROGRAM, *words, '--runtime', runtime],
        capture_output=True,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert done.returncode == 0, done.stderr
    assert '1 images, 2 detections' in done.stdout
    assert (tmp_path / 'out/detections.json').is_file()
