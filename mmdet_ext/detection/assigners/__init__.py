"""Registered label assigners and overlap measures: thin shells over functional.assignment.

Importing the package imports its modules, which registers their components; each is an attribute of
the package, such as ``mmdet_ext.detection.assigners.ATSSAssigner``.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import TYPE_CHECKING, Any

from mmdet_ext.detection.assigners.base import BatchAssigner
from mmdet_ext.registry import TASK_UTILS

if TYPE_CHECKING:

    def __getattr__(name: str) -> type[Any]: ...


for _module in pkgutil.iter_modules(__path__, f'{__name__}.'):
    import_module(_module.name)

_registered = {
    name: component
    for name, component in TASK_UTILS.module_dict.items()
    if component.__module__.startswith(f'{__name__}.')
}
globals().update(_registered)
__all__ = sorted([BatchAssigner.__name__, *_registered])
