"""Loading of MMEngine's checkpoints with ``weights_only=True``.

From torch 2.6 on, ``torch.load`` admits tensors and plain containers alone. MMEngine writes its
message hub into every checkpoint, so that ``mim test``, ``--resume`` and ``load_from`` refuse the
checkpoints that MMEngine itself wrote. OneDL's fork of MMEngine loads without that protection what
it has refused before. This module admits exactly the classes that such a checkpoint holds; all
others are refused by name, with either MMEngine, from a file or from the web.
"""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mmengine.runner.checkpoint as host
import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim import OneCycleParamScheduler
from mmengine.runner import CheckpointLoader

#: numpy 2 renamed numpy.core; checkpoints with either name are in use.
_NUMPY_CORES = ('numpy._core', 'numpy.core')

_ANNEALINGS = ('_annealing_cos', '_annealing_linear')


def _named_function(owner: Any, name: Any) -> Any:
    """Replace ``getattr``, with which a pickle names a function of a class.

    MMEngine's checkpoints name the statistics methods of a HistoryBuffer, and the annealing
    function of a one-cycle schedule.
    """
    functions: dict[str, Any] = {}
    if owner is HistoryBuffer:
        functions = (
            HistoryBuffer()._statistics_methods
        )  # a new buffer registers the default methods
    elif owner is _one_cycle:
        functions = {key: getattr(OneCycleParamScheduler, key) for key in _ANNEALINGS}
    if isinstance(name, str) and name in functions:
        return functions[name]
    raise pickle.UnpicklingError(
        f'Unsupported global: GLOBAL getattr({owner!r}, {name!r}); a checkpoint may name the '
        'statistics methods of HistoryBuffer and the annealing of OneCycleParamScheduler only'
    )


def _one_cycle(*args: Any) -> Any:
    """Replace ``OneCycleParamScheduler``, which a checkpoint names but never calls."""
    raise pickle.UnpicklingError(f'Unsupported global: GLOBAL OneCycleParamScheduler{args!r}')


def _plain_dict(content: Any) -> dict[Any, Any]:
    """Replace ``ConfigDict``, which the meta information of a data set may hold."""
    if type(content) is not dict:
        raise pickle.UnpicklingError(f'Unsupported global: GLOBAL ConfigDict({content!r})')
    return content


def _numeric_dtype(code: Any, *copying: Any) -> np.dtype[Any]:
    """Replace ``numpy.dtype``: return numpy's own dtype objects of numbers alone.

    An array of objects holds pointers, and a dtype that is a copy accepts any layout from a file.
    """
    dtype = np.dtype(code) if isinstance(code, str) else None
    if dtype is None or dtype.kind not in 'biuf' or dtype.isbuiltin != 1:
        raise pickle.UnpicklingError(f'Unsupported global: GLOBAL numpy.dtype({code!r})')
    return dtype


def _empty_array(*args: Any) -> np.ndarray[Any, Any]:
    """Replace ``numpy.ndarray`` and numpy's ``_reconstruct(ndarray, (0,), b'b')``.

    A checkpoint makes an empty array in this way and then sets its state, which numpy checks. It
    never calls ``numpy.ndarray``, with which a file could read its own bytes as pointers.
    """
    if args != (_empty_array, (0,), b'b'):
        raise pickle.UnpicklingError(f'Unsupported global: GLOBAL numpy.ndarray{args!r}')
    return np.empty(0, np.int8)


def checkpoint_classes() -> list[Any]:
    """List the classes and functions that MMEngine's checkpoints name, for `add_safe_globals`.

    Names in a file always have a dot. An entry whose name has no dot can therefore not be named or
    called by a file; torch only sets the state of its instances.
    """
    scalar = np.float64(0).__reduce__()[0]  # the same function in numpy 1 and 2
    codes = np.typecodes['AllInteger'] + np.typecodes['Float'] + '?'
    dtypes = {type(np.dtype(np.dtype(code).str)) for code in codes}
    return [
        HistoryBuffer,
        (_named_function, 'builtins.getattr'),
        (_one_cycle, 'mmengine.optim.scheduler.param_scheduler.OneCycleParamScheduler'),
        (_plain_dict, 'mmengine.config.config.ConfigDict'),
        (_numeric_dtype, 'numpy.dtype'),
        (_empty_array, 'numpy.ndarray'),
        *((scalar, f'{core}.multiarray.scalar') for core in _NUMPY_CORES),
        *((_empty_array, f'{core}.multiarray._reconstruct') for core in _NUMPY_CORES),
        (np.ndarray, 'ndarray'),
        *sorted(((cls, cls.__name__) for cls in dtypes), key=lambda entry: entry[1]),
    ]


def load_from_local(filename: str, map_location: Any) -> Any:
    """Load a checkpoint file with ``weights_only=True``, admitting `checkpoint_classes`.

    Args:
        filename: Path of the checkpoint; ``~`` is expanded.
        map_location: As in :func:`torch.load`.

    Returns:
        The content of the file.

    Raises:
        FileNotFoundError: If there is no such file.
        RuntimeError: If the file holds any other class or function (nothing of it is run), is cut,
            or is no checkpoint.
    """
    path = os.path.expanduser(filename)
    if not os.path.isfile(path):
        raise FileNotFoundError(f'checkpoint {filename!r} can not be found.')
    with _explained(filename):
        return torch.load(path, map_location=map_location, weights_only=True)


def load_url(
    url: str, model_dir: str | None = None, map_location: Any = None, progress: bool = True
) -> Any:
    """Replace MMEngine's ``load_url``: load a checkpoint of the web as one of the disk.

    Schemes such as ``https://``, ``torchvision://`` and ``open-mmlab://`` end here.

    Args:
        url: Address of the checkpoint. A file that was fetched before is not fetched again.
        model_dir: Folder for the file; by default that of :mod:`torch.hub`.
        map_location: As in :func:`torch.load`.
        progress: Whether to show the progress of the download.

    Raises:
        OSError: If the file cannot be fetched.
        RuntimeError: As `load_from_local`.
    """
    with _explained(url, passed=OSError):
        return torch.hub.load_state_dict_from_url(
            url, model_dir, map_location, progress, weights_only=True
        )


def _load_opened(file: Any, map_location: Any = None, *_: Any) -> Any:
    """Replace the fork's ``_safe_torch_load``, to which it gives a path or an open file."""
    with _explained(file if isinstance(file, str) else 'of a remote storage'):
        return torch.load(file, map_location=map_location, weights_only=True)


@contextmanager
def _explained(
    name: str, passed: type[Exception] | tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """Raise RuntimeError with the name of a checkpoint where loading fails, and the reason.

    Args:
        name: Name of the checkpoint in the message.
        passed: Types of errors that are left as they are.
    """
    methods = HistoryBuffer()._statistics_methods
    methods_before = dict(methods)
    try:
        yield
    except passed:
        raise
    except Exception as error:  # a cut file raises many types of errors
        raise RuntimeError(_why_not_loaded(name, error)) from error
    finally:  # a loaded HistoryBuffer writes the methods it names into its class
        methods.clear()
        methods.update(methods_before)


def _why_not_loaded(filename: str, error: Exception) -> str:
    """Return a message of one line: the refused name, or the reason why loading failed."""
    culprit = re.search(r'GLOBAL (\S+\(.*?\)|\S+)', str(error))
    if isinstance(error, pickle.UnpicklingError) and culprit is not None:
        return (
            f'checkpoint {filename!r} was refused: it holds {culprit[1].rstrip(".,")!r}, and '
            'loading that could run code. Nothing of it was run. A checkpoint may hold tensors, '
            'plain containers and what mmengine writes. If you know who wrote the file and trust '
            'its content, load it in a Python of your own, save its `state_dict` alone and load '
            'that file instead.'
        )
    # torch surrounds the reason with a page of advice.
    reason = str(error).partition('WeightsUnpickler error: ')[2] or str(error)
    return (
        f'checkpoint {filename!r} cannot be loaded ({type(error).__name__}: '
        f'{reason.strip().partition(chr(10))[0]}). Is the file whole, and written by torch.save?'
    )


def install_safe_loading() -> None:
    """Admit MMEngine's own classes, and make MMEngine load all checkpoints with `weights_only`.

    Before torch 2.6, ``torch.load`` loads everything by default, so nothing is changed.
    """
    major, minor = (int(part) for part in torch.__version__.split('.')[:2])
    if (major, minor) < (2, 6):
        return
    torch.serialization.add_safe_globals(checkpoint_classes())
    CheckpointLoader.register_scheme(prefixes='', loader=load_from_local, force=True)
    host.load_url = load_url
    if hasattr(host, '_safe_torch_load'):
        host._safe_torch_load = _load_opened
