"""Files of each runtime, written whole or not at all."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import tempfile
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import onnx
import torch
from torch import Tensor, nn

from mmdet_ext.deploy.metadata import KEY, ModelInfo
from mmdet_ext.deploy.runtimes.base import sha256
from mmdet_ext.deploy.runtimes.ncnn import LINE
from mmdet_ext.export.onnx_file import ExportError, write_onnx
from mmdet_ext.utils.files import whole_file

#: Target -> ending of its file.
SUFFIXES = {'onnx': '.onnx', 'openvino': '.xml', 'ncnn': '.param'}


def write_network(
    model: onnx.ModelProto, info: ModelInfo, path: Path, target: Literal['onnx', 'openvino']
) -> ModelInfo:
    """Write a network of ONNX for onnxruntime or OpenVINO.

    Args:
        model: the network.
        info: its description.
        path: file to write.
        target: runtime.

    Returns:
        ModelInfo: description as written.
    """
    if target == 'onnx':
        write_onnx(model, path, info)
        return info
    return write_openvino(to_openvino(model), info, path)


def to_openvino(model: onnx.ModelProto) -> Any:
    """Convert a network of ONNX to OpenVINO's.

    Raises:
        ExportError: if OpenVINO is absent or cannot convert it, or the network has an antialiased
            resize, which OpenVINO computes otherwise than torch (by up to 0.33).
    """
    for node in model.graph.node:
        if node.op_type == 'Resize' and any(
            each.name == 'antialias' and each.i for each in node.attribute
        ):
            raise ExportError(
                'the network holds a resize with antialias, which OpenVINO computes otherwise '
                'than torch, by up to 0.33: use interpolation without it, or export to onnx'
            )
    ov = _module('openvino', 'OpenVINO')
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, 'network.onnx')
        file.write_bytes(model.SerializeToString())
        try:
            return ov.convert_model(file)
        except Exception as error:
            raise ExportError(f'OpenVINO cannot convert the network: {error}') from error


def write_openvino(network: Any, info: ModelInfo, path: Path) -> ModelInfo:
    """Write a network of OpenVINO, in the precision that it has, and its description.

    ``save_model`` would halve the precision of the weights by itself.

    Args:
        network: of OpenVINO.
        info: its description.
        path: ``.xml`` file to write; the weights go to the ``.bin`` beside it.
    """
    ov = _module('openvino', 'OpenVINO')
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix='.export') as folder:
        file = Path(folder, path.name)
        ov.save_model(network, file, compress_to_fp16=False)
        info = dataclasses.replace(info, weights_sha256=sha256(file.with_suffix('.bin')))
        network.set_rt_info(info.to_json(), [KEY])
        ov.save_model(network, file, compress_to_fp16=False)
        if sha256(file.with_suffix('.bin')) != info.weights_sha256:
            raise ExportError('OpenVINO wrote other weights the second time: export again')
        os.replace(file.with_suffix('.bin'), path.with_suffix('.bin'))
        os.replace(file, path)
    return info


def write_ncnn(network: nn.Module, example: Tensor, info: ModelInfo, path: Path) -> ModelInfo:
    """Trace a network, convert it by pnnx, and write ncnn's two files, in float32.

    Args:
        network: in evaluation mode, of one input.
        example: input (1, 3, H, W).
        info: its description, which becomes the last line of the ``.param`` file.
        path: ``.param`` file to write; the weights go to the ``.bin`` beside it.

    Raises:
        ExportError: if pnnx or ncnn is absent, pnnx fails, or ncnn cannot load its result.
    """
    pnnx, ncnn = _module('pnnx', 'pnnx'), _module('ncnn', 'ncnn')
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix='.export') as folder:
        traced = Path(folder, 'network.pt')
        with torch.no_grad():
            torch.jit.trace(network, example, check_trace=False).save(str(traced))
        param, weights = Path(folder, 'n.param'), Path(folder, 'n.bin')
        shape = ','.join(map(str, example.shape))
        words = [
            pnnx.EXEC_PATH,
            str(traced),
            f'inputshape=[{shape}]f32',
            'fp16=0',
            f'ncnnparam={param}',
            f'ncnnbin={weights}',
        ]
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
        _check_ncnn(ncnn, param, weights, done.stderr + done.stdout, done.returncode)
        info = dataclasses.replace(info, weights_sha256=sha256(weights))
        text = param.read_text(encoding='utf-8').rstrip('\n')
        with whole_file(path.with_suffix('.bin')) as part:
            part.write_bytes(weights.read_bytes())
        with whole_file(path) as part:
            part.write_text(f'{text}\n{LINE}{info.to_json()}\n', encoding='utf-8')
    return info


def _check_ncnn(ncnn: ModuleType, param: Path, weights: Path, log: str, code: int) -> None:
    """Raise unless ncnn loads what pnnx wrote: pnnx returns 0 for layers that ncnn lacks too."""
    if code or not param.is_file():
        raise ExportError(f'pnnx failed with exit code {code}: {log[-400:]}')
    kinds = {line.split()[0] for line in param.read_text(encoding='utf-8').splitlines()[2:]}
    lacking = sorted(kind for kind in kinds if '.' in kind or '::' in kind)
    net = ncnn.Net()
    net.opt.use_vulkan_compute = False
    if lacking or net.load_param(str(param)) or net.load_model(str(weights)):
        raise ExportError(
            f'ncnn cannot load what pnnx made of the network'
            f'{": it has no layer " + ", ".join(lacking) if lacking else ""}. Export to onnx or '
            'openvino'
        )


def _module(package: str, name: str) -> ModuleType:
    try:
        return import_module(package)
    except ImportError as error:
        raise ExportError(f'{name} is not installed: pip install {package} ({error})') from error
