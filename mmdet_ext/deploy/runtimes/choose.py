"""Choice of the runtime of a model file."""

from __future__ import annotations

from importlib.util import find_spec
from os import PathLike
from pathlib import Path

from mmdet_ext.deploy.errors import ModelFileError, RuntimeAbsentError
from mmdet_ext.deploy.processor import default_threads
from mmdet_ext.deploy.runtimes.base import Runtime
from mmdet_ext.deploy.runtimes.ncnn import Ncnn
from mmdet_ext.deploy.runtimes.onnx import OnnxRuntime
from mmdet_ext.deploy.runtimes.openvino import OpenVino

#: Name of a runtime, in small letters -> its class. The first that reads a file is its default.
RUNTIMES: dict[str, type[Runtime]] = {
    'onnxruntime': OnnxRuntime,
    'openvino': OpenVino,
    'ncnn': Ncnn,
}


def open_model(
    path: str | PathLike[str], runtime: str | None = None, threads: int | None = None
) -> Runtime:
    """Open a model file.

    Args:
        path: file that ``tools/deploy/export.py`` wrote.
        runtime: one of `RUNTIMES`; None for the first that reads the file and is installed.
        threads: threads of a call; None for OMP_NUM_THREADS, or, without it, the runtime's number.

    Raises:
        ModelFileError: if the file is absent, truncated or of another kind.
        RuntimeAbsentError: if the runtime is not installed.
    """
    file = Path(path)
    if not file.is_file():
        raise ModelFileError(f'{file}: there is no such file')
    if threads is not None and threads < 1:
        raise ModelFileError(f'threads must be at least 1, got {threads}')
    kind = _choose(file, runtime)
    return kind(file, threads if threads is not None else default_threads())


def _choose(file: Path, runtime: str | None) -> type[Runtime]:
    fitting = [name for name, kind in RUNTIMES.items() if file.suffix.lower() in kind.suffixes]
    if not fitting:
        raise ModelFileError(
            f'{file}: no runtime reads files with the ending {file.suffix!r}. Give the .onnx, '
            '.xml or .param file of an export'
        )
    if runtime is not None:
        if runtime.lower() not in fitting:
            raise ModelFileError(
                f'{file} is not read by runtime={runtime!r}, but by {", ".join(fitting)}'
            )
        return RUNTIMES[runtime.lower()]
    for name in fitting:
        if find_spec(RUNTIMES[name].package) is not None:
            return RUNTIMES[name]
    packages = ' or '.join(RUNTIMES[name].package for name in fitting)
    raise RuntimeAbsentError(f'{file} needs {packages}: pip install {fitting[0]}')
