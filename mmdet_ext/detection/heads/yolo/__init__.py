"""Registered heads of the YOLO detectors.

Each is an attribute of the package, such as ``mmdet_ext.detection.heads.yolo.YOLOV3Head``.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from mmdet_ext.registry import MODELS, import_components

if TYPE_CHECKING:

    def __getattr__(name: str) -> type[Any]: ...


_components = import_components(sys.modules[__name__], MODELS)
globals().update(_components)
__all__ = sorted(_components)
