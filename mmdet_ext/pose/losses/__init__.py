"""Registered losses of heatmaps, tags and part affinity fields; none of them needs MMPose."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from mmdet_ext.registry import MODELS, import_components

if TYPE_CHECKING:

    def __getattr__(name: str) -> type[Any]: ...


_components = import_components(sys.modules[__name__], MODELS)
globals().update(_components)
__all__ = list(_components)
