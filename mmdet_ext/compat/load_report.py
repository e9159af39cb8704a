"""Grouped report where weights that MMEngine loads do not fit the model.

MMEngine loads what fits, and logs each name of the rest: hundreds of them where a file is that of
another network. Importing `mmdet_ext.compat` adds numbers and groups behind that list, wherever
MMEngine loads weights: ``load_from``, ``--resume``, ``mim test``, inferencers, and ``init_cfg`` of
a part of the model.
"""

from __future__ import annotations

import functools
import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import mmengine.runner.checkpoint as host
from mmengine.dist import is_main_process
from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import nn

from mmdet_ext.compat.layouts import compare_layouts


def install_load_report() -> None:
    """Make MMEngine's ``load_state_dict`` log the report; a second call changes nothing."""
    if not hasattr(host.load_state_dict, 'reports_layouts'):
        host.load_state_dict = _reporting(host.load_state_dict)


def _reporting(load: Callable[..., None]) -> Callable[..., None]:
    """Return a loader of weights that logs the report behind what ``load`` logs or raises."""

    @functools.wraps(load)
    def load_state_dict(
        module: nn.Module,
        state_dict: OrderedDict[str, Any],
        strict: bool = False,
        logger: Any = None,
    ) -> None:
        model: Any = module
        while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.module
        found: list[list[str]] = []

        def note(_: nn.Module, keys: Any) -> None:
            found[:] = [[*keys.missing_keys], [*keys.unexpected_keys]]

        # The loader knows names that a module has converted; a comparison by names does not.
        handle = model.register_load_state_dict_post_hook(note)
        try:
            load(module, state_dict, strict, logger)
        finally:
            handle.remove()
            report = compare_layouts(model.state_dict(), state_dict, *found)
            if not report.fits and is_main_process():
                text = [f'weights of another layout: {report.counts()}', *report.lines()]
                # A runner gives no logger; its own writes the report into the log of the run.
                print_log('\n  '.join(text), logger or 'current', logging.WARNING)

    load_state_dict.reports_layouts = True  # type: ignore[attr-defined]
    return load_state_dict
