"""Networks run by OpenVINO on the processor."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from mmdet_ext.deploy.errors import ModelFileError
from mmdet_ext.deploy.metadata import KEY, from_json
from mmdet_ext.deploy.runtimes.base import Runtime, check_int8, check_weights, load


class OpenVino(Runtime):
    """Network in OpenVINO.

    It computes in float32 by request: by itself it takes bfloat16 where the processor has it. An
    int8 network without room against saturation is refused on a processor that would saturate.
    """

    name = 'OpenVINO'
    package = 'openvino'
    suffixes = ('.xml', '.onnx')

    def __init__(self, path: Path, threads: int | None) -> None:
        ov = load(self.package, self.name)
        core = ov.Core()
        weights = path.with_suffix('.bin')
        is_onnx = path.suffix.lower() == '.onnx'
        if not is_onnx:  # before OpenVINO reads wrong weights, at which it may crash
            check_weights(from_json(_text_of_ir(path), path), path, weights)
        try:
            model = core.read_model(path)
        except Exception as error:
            raise ModelFileError(
                f'{path} cannot be read by OpenVINO {ov.__version__}: it is truncated or another '
                f'kind of file ({str(error).strip().splitlines()[-1]})'
            ) from error
        self.info = from_json(_text(model), path)
        check_int8(self.info, path)
        config: dict[str, Any] = {'INFERENCE_PRECISION_HINT': 'f32', 'PERFORMANCE_HINT': 'LATENCY'}
        if threads is not None:
            config['INFERENCE_NUM_THREADS'] = threads
        self._compiled = core.compile_model(model, 'CPU', config)
        used = self._compiled.get_property('INFERENCE_PRECISION_HINT')
        if 'f32' not in str(used) and 'float' not in str(used):
            raise ModelFileError(f'OpenVINO computes {path} in {used}, where float32 was asked for')
        self._request = self._compiled.create_infer_request()
        self._inputs = [each.get_any_name() for each in self._compiled.inputs]
        self._outputs = [each.get_any_name() for each in self._compiled.outputs]

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the network; see `Runtime.run`."""
        self._request.infer({name: feeds[name] for name in self._inputs})
        return {
            name: self._request.get_output_tensor(place).data.copy()
            for place, name in enumerate(self._outputs)
        }


def _text_of_ir(path: Path) -> str | None:
    """Return the description in an IR, read as XML."""
    try:
        content = path.read_bytes()
        if b'<!ENTITY' in content:
            raise ModelFileError(f'{path} declares an entity of XML, which no export does')
        found = ElementTree.fromstring(content).find(f'rt_info/{KEY}')
    except (ElementTree.ParseError, OSError) as error:
        raise ModelFileError(
            f'{path} cannot be read as XML: it is truncated or another kind of file ({error})'
        ) from error
    return None if found is None else found.get('value')


def _text(model: Any) -> str | None:
    """Return the description: rt_info of an IR, metadata of an ONNX file within it."""
    for keys in ([KEY], ['framework', KEY]):
        if model.has_rt_info(keys):
            return str(model.get_rt_info(keys).astype(str))
    return None
