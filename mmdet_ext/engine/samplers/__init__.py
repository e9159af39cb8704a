"""Samplers of images by their classes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from mmdet_ext.registry import DATA_SAMPLERS, import_components

if TYPE_CHECKING:

    def __getattr__(name: str) -> type[Any]: ...


_components = import_components(sys.modules[__name__], DATA_SAMPLERS)
globals().update(_components)
__all__ = list(_components)
