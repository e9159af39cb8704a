"""Margins of the registry ``MARGINS``; importing this package registers them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from mmdet_ext.face.margins.base import Margin
from mmdet_ext.registry import MARGINS, import_components

if TYPE_CHECKING:

    def __getattr__(name: str) -> type[Any]: ...


_components = import_components(sys.modules[__name__], MARGINS)
globals().update(_components)
__all__ = sorted([Margin.__name__, *_components])
