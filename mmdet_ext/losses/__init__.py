"""Registered losses: thin shells over :mod:`mmdet_ext.functional`.

Importing the package imports its modules, which registers their losses; each is an attribute of the
package, such as ``mmdet_ext.losses.CIoULoss``.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import TYPE_CHECKING

from mmdet_ext.registry import MODELS

if TYPE_CHECKING:
    from torch import nn

    def __getattr__(name: str) -> type[nn.Module]: ...


for _module in pkgutil.iter_modules(__path__, f'{__name__}.'):
    import_module(_module.name)

_losses = {
    name: loss
    for name, loss in MODELS.module_dict.items()
    if loss.__module__.startswith(f'{__name__}.')
}
globals().update(_losses)
__all__ = sorted(_losses)
