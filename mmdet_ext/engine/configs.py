"""Configs as tools read them, with options of the command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config, DictAction

from mmdet_ext.engine.errors import InputError, explained


def read_config(path: Path, options: Sequence[str] = ()) -> Config:
    """Read a config and set options in it.

    Args:
        path: config file.
        options: options of the form KEY=VALUE, read as MMEngine's tools read ``--cfg-options``.

    Raises:
        InputError: if there is no such file, it cannot be read, or an option does not fit.
    """
    if not path.is_file():
        raise InputError(f'no such config: {path}')
    for option in options:
        if '=' not in option:
            raise InputError(f'--cfg-options {option!r} is not KEY=VALUE')
    with explained(f'cannot read the config {path}'):
        config = Config.fromfile(path)
    with explained(f'cannot set --cfg-options {" ".join(options)} in {path}'):
        parsed = argparse.Namespace(options={})
        DictAction([], 'options')(argparse.ArgumentParser(), parsed, list(options))
        config.merge_from_dict(parsed.options)
    return config
