"""Form that every runtime has here."""

from __future__ import annotations

import hashlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import numpy as np

from mmdet_ext.deploy.errors import ModelFileError, RuntimeAbsentError
from mmdet_ext.deploy.metadata import ModelInfo
from mmdet_ext.deploy.processor import int8_instructions


class Runtime(ABC):
    """Network of a model file, ready to run in float32, or int8 where the file is of int8.

    Args:
        path: model file.
        threads: threads of a call; None for the runtime's own number.

    Attributes:
        name: of the runtime.
        package: that has it.
        suffixes: endings of the files that it reads.
        info: description in the file.
        batches: whether a call may have several images.
    """

    name: ClassVar[str]
    package: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]
    batches: ClassVar[bool] = True
    info: ModelInfo

    @abstractmethod
    def __init__(self, path: Path, threads: int | None) -> None: ...

    @abstractmethod
    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the network.

        Args:
            feeds: name of an input -> values, of which the network gets those that it has.
        """


def load(package: str, name: str) -> ModuleType:
    """Import a runtime.

    Raises:
        RuntimeAbsentError: if it is not installed.
    """
    try:
        return import_module(package)
    except ImportError as error:
        raise RuntimeAbsentError(
            f'{name} is not installed: pip install {package} ({error})'
        ) from error


def check_weights(info: ModelInfo, path: Path, weights: Path) -> None:
    """Raise unless the file of weights beside a model file is the one that was exported with it.

    Raises:
        ModelFileError: if it is absent, truncated or another's.
    """
    if not weights.is_file():
        raise ModelFileError(
            f'{weights} is absent: {path.name} and {weights.name} are one model. Keep them in one '
            'folder, and rename both alike'
        )
    if info.weights_sha256 not in (None, sha256(weights)):
        raise ModelFileError(
            f'{weights} is not the file that was exported with {path.name}: it is truncated, or '
            'belongs to another model. Copy both files of the export, or export anew'
        )


def check_int8(info: ModelInfo, path: Path) -> None:
    """Raise for an int8 network whose sums would saturate on this processor.

    Raises:
        ModelFileError: if the processor has no VNNI, and the weights are of 8 bits.
    """
    if info.precision != 'int8' or int8_instructions():
        return
    if not info.saturation_safe:
        raise ModelFileError(
            f'{path} is an int8 network for processors with VNNI, which this one has not: sums '
            'would saturate, and detections be wrong without a sign of it. Export it with '
            '--vnni no, or take the float32 file'
        )
    warnings.warn('this processor has no VNNI: int8 may be slower than float32', stacklevel=4)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, as hexadecimal digits."""
    with path.open('rb') as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
