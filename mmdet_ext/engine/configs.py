"""Configs as tools read them, with options of the command line."""

from __future__ import annotations

import argparse
import copy
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


def add_training_images(config: Config, ann_file: str, folder: str) -> Config:
    """Return a config whose training has the images of another COCO file, too.

    They are joined to the data set that reads images, within what wraps it. Images without an
    object stay.

    Args:
        config: of mmdet; it stays as it is.
        ann_file: the COCO file.
        folder: the folder of its images.

    Raises:
        InputError: if the config has no training data in a COCO file.
    """
    made: Config = copy.deepcopy(config)
    loader: Any = made.get('train_dataloader') or {}
    dataset = loader.get('dataset') or {}
    loader['dataset'] = _joined(dataset, ann_file, folder)
    return made


def _joined(dataset: Any, ann_file: str, folder: str) -> Any:
    """Join another COCO file to the data set that reads one, within its wrappers."""
    inner = dataset.get('dataset')
    if inner is not None:
        dataset['dataset'] = _joined(inner, ann_file, folder)
        return dataset
    parts = dataset.get('datasets')
    if parts:
        first = _joined(copy.deepcopy(parts[0]), ann_file, folder)
        while 'datasets' not in first:
            first = first['dataset']
        dataset['datasets'] = [*parts, first['datasets'][-1]]
        return dataset
    if not str(dataset.get('ann_file', '')).endswith('.json'):
        raise InputError(
            'the config has no train_dataloader.dataset with a COCO file as ann_file, to which '
            f'images could be added; its data set is {dataset.get("type")}'
        )
    more = copy.deepcopy(dataset)
    more.pop('indices', None)
    more.update(
        ann_file=ann_file,
        data_root='',
        data_prefix=dict(img=folder),
        filter_cfg=dict(filter_empty_gt=False),
    )
    return dict(type='ConcatDataset', datasets=[dataset, more])
