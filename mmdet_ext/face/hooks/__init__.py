"""Registered face hooks: schedules of margin and scale, plots, checkpoints of sharded classes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from mmdet_ext.registry import HOOKS, import_components

if TYPE_CHECKING:

    def __getattr__(name: str) -> type[Any]: ...


_components = import_components(sys.modules[__name__], HOOKS)
globals().update(_components)
__all__ = list(_components)
