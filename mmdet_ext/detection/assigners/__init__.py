"""Registered label assigners and overlap measures: shells over `functional.assignment`.

Each is an attribute of the package, such as ``mmdet_ext.detection.assigners.ATSSAssigner``.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from mmdet_ext.detection.assigners.base import BatchAssigner
from mmdet_ext.registry import TASK_UTILS, import_components

if TYPE_CHECKING:

    def __getattr__(name: str) -> type[Any]: ...


_components = import_components(sys.modules[__name__], TASK_UTILS)
globals().update(_components)
__all__ = sorted([BatchAssigner.__name__, *_components])
