"""Configs as tools read them, with options of the command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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


def test_pipeline(config: Config) -> list[Any]:
    """Return the transforms of the test data set, or of validation; none where none are stated.

    The data set may be wrapped. Of joined data sets the first counts.
    """
    data: Any = config.get('test_dataloader') or config.get('val_dataloader')
    dataset = data.get('dataset') if data else None
    while dataset is not None and 'pipeline' not in dataset:
        inner = dataset.get('dataset') or dataset.get('datasets')
        dataset = inner[0] if isinstance(inner, (list, tuple)) and inner else inner
    stated = dataset['pipeline'] if dataset is not None else None
    return list(stated or config.get('test_pipeline') or ())
