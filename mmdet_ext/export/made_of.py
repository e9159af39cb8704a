"""Versions and files that a model file is made of."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from mmdet_ext.version import __version__

PACKAGES = ('torch', 'mmdet', 'onnx', 'onnxscript', 'openvino', 'nncf', 'pnnx', 'onnxruntime')


def made_of(sources: Mapping[str, str]) -> dict[str, str]:
    """Return sources and installed versions.

    Args:
        sources: name -> text, such as the file name of a config.
    """
    found = dict(sources) | {'mmdet_ext': __version__}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
