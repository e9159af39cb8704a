"""Loading MMEngine's checkpoints with ``weights_only=True``.

From torch 2.6 on ``torch.load`` admits nothing but tensors and plain containers. MMEngine writes
its message hub into every checkpoint, so that ``mim test``, ``--resume`` and ``load_from`` refuse
the checkpoints that MMEngine itself wrote. Here exactly the classes that such a checkpoint holds
are admitted; everything else is still refused, by name.
"""

from __future__ import annotations

import os
import pickle
import re
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader

#: numpy 2 renamed numpy.core; checkpoints written under either name are in use.
_NUMPY_CORES = ('numpy._core', 'numpy.core')


def _statistics_method(owner: Any, name: Any) -> Any:
    """Stand in for ``getattr``, by which a pickled HistoryBuffer names its statistics methods."""
    methods = HistoryBuffer()._statistics_methods  # making one registers the default methods
    if owner is HistoryBuffer and name in methods:
        return methods[name]
    raise pickle.UnpicklingError(
        f'Unsupported global: GLOBAL getattr({owner!r}, {name!r}); only the statistics methods '
        'of mmengine.logging.HistoryBuffer may be named by a checkpoint'
    )


def checkpoint_classes() -> list[Any]:
    """What a checkpoint of MMEngine holds besides tensors, in `add_safe_globals`' form."""
    multiarray = np._core.multiarray if hasattr(np, '_core') else np.core.multiarray
    numeric = np.typecodes['AllInteger'] + np.typecodes['Float'] + '?'
    return [
        HistoryBuffer,
        (_statistics_method, 'builtins.getattr'),
        np.ndarray,
        np.dtype,
        *sorted({type(np.dtype(code)) for code in numeric}, key=lambda cls: cls.__name__),
        *((multiarray.scalar, f'{core}.multiarray.scalar') for core in _NUMPY_CORES),
        *((multiarray._reconstruct, f'{core}.multiarray._reconstruct') for core in _NUMPY_CORES),
    ]


def load_from_local(filename: str, map_location: Any) -> Any:
    """Load a checkpoint file with ``weights_only=True``, admitting `checkpoint_classes`.

    Args:
        filename: path of the checkpoint, ``~`` admitted.
        map_location: as in :func:`torch.load`.

    Raises:
        FileNotFoundError: if there is no such file.
        RuntimeError: if the file holds any other class or function (nothing of it is run), or is
            no checkpoint.
    """
    path = os.path.expanduser(filename)
    if not os.path.isfile(path):
        raise FileNotFoundError(f'checkpoint {filename!r} can not be found.')
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        culprit = re.search(r'GLOBAL (\S+\(.*?\)|\S+)', str(error))
        if culprit is None:
            raise RuntimeError(f'{filename!r} is no checkpoint of torch: {error}') from error
        raise RuntimeError(
            f'checkpoint {filename!r} was refused: it holds {culprit[1].rstrip(".,")!r}, and '
            'loading that could run code. Nothing of it was run. A checkpoint may hold tensors, '
            'plain containers and what mmengine writes. If you know who wrote the file and trust '
            'its content, load it in a Python of your own, save its `state_dict` alone and load '
            'that file instead.'
        ) from error


def install_safe_loading() -> None:
    """Admit MMEngine's own classes and make MMEngine load local files by `load_from_local`.

    Before torch 2.6, ``torch.load`` still loads everything by default and there is nothing to
    mend, so nothing is changed.
    """
    major, minor = (int(part) for part in torch.__version__.split('.')[:2])
    if (major, minor) < (2, 6):
        return
    torch.serialization.add_safe_globals(checkpoint_classes())
    CheckpointLoader.register_scheme(prefixes='', loader=load_from_local, force=True)
