"""Networks run by onnxruntime on the processor."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mmdet_ext.deploy.errors import ModelFileError
from mmdet_ext.deploy.metadata import KEY, from_json
from mmdet_ext.deploy.runtimes.base import Runtime, check_int8, load


class OnnxRuntime(Runtime):
    """Network in onnxruntime.

    By itself it takes all cores, whatever OMP_NUM_THREADS is: `open_model` passes that on.
    """

    name = 'onnxruntime'
    package = 'onnxruntime'
    suffixes = ('.onnx',)

    def __init__(self, path: Path, threads: int | None) -> None:
        ort = load(self.package, self.name)
        options = ort.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
            options.inter_op_num_threads = 1
        try:
            self._session = ort.InferenceSession(
                str(path), options, providers=['CPUExecutionProvider']
            )
        except Exception as error:  # its own classes derive from Exception alone
            raise ModelFileError(
                f'{path} cannot be loaded by onnxruntime {ort.__version__}: it is truncated, no '
                f'ONNX file, or newer than the runtime ({_first_line(error)})'
            ) from error
        text = self._session.get_modelmeta().custom_metadata_map.get(KEY)
        self.info = from_json(text, path)
        check_int8(self.info, path)
        self._inputs = [each.name for each in self._session.get_inputs()]
        self._outputs = [each.name for each in self._session.get_outputs()]

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the network; see `Runtime.run`."""
        given = {name: feeds[name] for name in self._inputs}
        return dict(zip(self._outputs, self._session.run(self._outputs, given), strict=True))


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
