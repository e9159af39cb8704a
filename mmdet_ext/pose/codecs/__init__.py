"""Registered codecs: people to maps that a network learns, and maps back to people."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from mmdet_ext.registry import KEYPOINT_CODECS, import_components

if TYPE_CHECKING:

    def __getattr__(name: str) -> type[Any]: ...


_components = import_components(sys.modules[__name__], KEYPOINT_CODECS)
globals().update(_components)
__all__ = list(_components)
