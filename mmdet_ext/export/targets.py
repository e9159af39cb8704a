"""Files of each runtime, written whole or not at all."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import tempfile
import warnings
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from mmdet_ext.deploy.metadata import KEY, ModelInfo
from mmdet_ext.deploy.runtimes.base import sha256
from mmdet_ext.deploy.runtimes.ncnn import LINE, Ncnn
from mmdet_ext.export.onnx_file import ExportError, write_onnx

#: Largest difference of ncnn from torch, as a share of the largest number of an output.
NCNN_TOLERANCE = 1e-3


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
    ov = installed('openvino', 'OpenVINO')
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
    ov = installed('openvino', 'OpenVINO')
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
    pnnx, ncnn = installed('pnnx', 'pnnx'), installed('ncnn', 'ncnn')
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix='.export') as folder:
        traced = Path(folder, 'network.pt')
        _trace(network, example, traced)
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
        param.write_text(f'{text}\n{LINE}{info.to_json()}\n', encoding='utf-8')
        _check_numbers(network, example, param)
        os.replace(weights, path.with_suffix('.bin'))
        os.replace(param, path)
    return info


def _trace(network: nn.Module, example: Tensor, path: Path) -> None:
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter('ignore')  # shapes become constants, as ncnn needs
            torch.jit.trace(network, example, check_trace=False).save(str(path))
    except RuntimeError as error:
        raise ExportError(
            f'TorchScript cannot trace {type(network).__name__} for ncnn: '
            f'{str(error).strip().splitlines()[0]}. Export to onnx or openvino'
        ) from error


def _check_numbers(network: nn.Module, example: Tensor, param: Path) -> None:
    """Raise where ncnn computes other numbers than torch, which it does without a sign of it."""
    images = torch.randn(example.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        results = network(images)
    expected = [results] if isinstance(results, Tensor) else list(results)
    runtime = Ncnn(param, None)
    found = runtime.run({'images': images.numpy()})
    for name, values in zip(runtime.info.output_names(), expected, strict=True):
        own = found[name].ravel()
        wanted = values.numpy().ravel()
        if own.size != wanted.size:
            raise ExportError(f'ncnn returns {own.size} numbers as {name}, torch {wanted.size}')
        apart = float(np.abs(own - wanted).max())
        if not apart <= NCNN_TOLERANCE * max(1.0, float(np.abs(wanted).max())):
            raise ExportError(
                f'ncnn computes other numbers than torch as {name} (by {apart:.2e}): it misreads '
                'a layer of this network. Export to onnx or openvino'
            )


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


def installed(package: str, name: str) -> ModuleType:
    """Import a package, or a module of it.

    Args:
        package: the package or module.
        name: of the package, for the message.

    Raises:
        ExportError: if it is not installed.
    """
    try:
        return import_module(package)
    except ImportError as error:
        raise ExportError(
            f'{name} is not installed: pip install {package.partition(".")[0]} ({error})'
        ) from error
