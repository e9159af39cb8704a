"""Files that a training set of this process holds, compared with those of a test set."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from mmdet_ext.data.duplicates import find_shared_files

#: Paths by training set, as one text each, which takes a fraction of the memory of many.
_TRAINED: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


def remember_training(dataset: Any, paths: Sequence[str]) -> None:
    """Keep the paths of a training set as long as the set itself exists.

    Args:
        dataset: The data set.
        paths: Paths of its images.
    """
    _TRAINED[dataset] = '\n'.join(paths)


def find_trained(paths: Sequence[str]) -> list[tuple[Path, Path]]:
    """Find the files that a training set of this process holds, by path or by content.

    Args:
        paths: Files of a test set.

    Returns:
        A pair for each such file: the file, and that of the training set.
    """
    shared = _shared(paths)
    if shared:
        gc.collect()  # sets of an earlier run may wait to be freed
        shared = _shared(paths)
    return shared


def _shared(paths: Sequence[str]) -> list[tuple[Path, Path]]:
    trained = [path for text in _TRAINED.values() for path in text.split('\n')]
    return find_shared_files(trained, paths) if trained else []
