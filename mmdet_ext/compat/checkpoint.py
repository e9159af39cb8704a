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
from mmengine.optim import OneCycleParamScheduler
from mmengine.runner import CheckpointLoader

#: numpy 2 renamed numpy.core; checkpoints written under either name are in use.
_NUMPY_CORES = ('numpy._core', 'numpy.core')

_ANNEALINGS = ('_annealing_cos', '_annealing_linear')


def _named_function(owner: Any, name: Any) -> Any:
    """Stand in for ``getattr``, by which a pickle names a class's function.

    MMEngine's checkpoints name the statistics methods of a HistoryBuffer, and how a one-cycle
    schedule anneals.
    """
    functions: dict[str, Any] = {}
    if owner is HistoryBuffer:
        functions = HistoryBuffer()._statistics_methods  # making one registers the default methods
    elif owner is _one_cycle:
        functions = {key: getattr(OneCycleParamScheduler, key) for key in _ANNEALINGS}
    if isinstance(name, str) and name in functions:
        return functions[name]
    raise pickle.UnpicklingError(
        f'Unsupported global: GLOBAL getattr({owner!r}, {name!r}); a checkpoint may name the '
        'statistics methods of HistoryBuffer and the annealing of OneCycleParamScheduler only'
    )


def _one_cycle(*args: Any) -> Any:
    """Stand in for ``OneCycleParamScheduler``, which a checkpoint names but never makes."""
    raise pickle.UnpicklingError(f'Unsupported global: GLOBAL OneCycleParamScheduler{args!r}')


def _plain_dict(content: Any) -> dict[Any, Any]:
    """Stand in for ``ConfigDict``, which a data set's meta information may hold."""
    if type(content) is not dict:
        raise pickle.UnpicklingError(f'Unsupported global: GLOBAL ConfigDict({content!r})')
    return content


def _numeric_dtype(code: Any, *copying: Any) -> np.dtype[Any]:
    """Stand in for ``numpy.dtype``: numbers only, and numpy's own objects, which stay as they are.

    An array of objects holds pointers, and a dtype that is a copy takes any layout from a file.
    """
    dtype = np.dtype(code) if isinstance(code, str) else None
    if dtype is None or dtype.kind not in 'biuf' or dtype.isbuiltin != 1:
        raise pickle.UnpicklingError(f'Unsupported global: GLOBAL numpy.dtype({code!r})')
    return dtype


def _empty_array(*args: Any) -> np.ndarray[Any, Any]:
    """Stand in for ``numpy.ndarray`` and numpy's ``_reconstruct(ndarray, (0,), b'b')``.

    A checkpoint begins an array so and then sets its state, which numpy checks. It never calls
    ``numpy.ndarray``, by which a file could read bytes of its own as pointers.
    """
    if args != (_empty_array, (0,), b'b'):
        raise pickle.UnpicklingError(f'Unsupported global: GLOBAL numpy.ndarray{args!r}')
    return np.empty(0, np.int8)


def checkpoint_classes() -> list[Any]:
    """What a checkpoint of MMEngine holds besides tensors, in `add_safe_globals`' form.

    The names in a file always have a dot: what stands here under a name without one cannot be
    named or called by a file, and only has its state set.
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
        filename: path of the checkpoint, ``~`` admitted.
        map_location: as in :func:`torch.load`.

    Raises:
        FileNotFoundError: if there is no such file.
        RuntimeError: if the file holds any other class or function (nothing of it is run), is cut,
            or is no checkpoint.
    """
    path = os.path.expanduser(filename)
    if not os.path.isfile(path):
        raise FileNotFoundError(f'checkpoint {filename!r} can not be found.')
    methods = HistoryBuffer()._statistics_methods
    methods_before = dict(methods)
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # a cut file makes the parser stumble over anything
        raise RuntimeError(_why_not_loaded(filename, error)) from error
    finally:  # a loaded HistoryBuffer writes what it names into its class
        methods.clear()
        methods.update(methods_before)


def _why_not_loaded(filename: str, error: Exception) -> str:
    culprit = re.search(r'GLOBAL (\S+\(.*?\)|\S+)', str(error))
    if isinstance(error, pickle.UnpicklingError) and culprit is not None:
        return (
            f'checkpoint {filename!r} was refused: it holds {culprit[1].rstrip(".,")!r}, and '
            'loading that could run code. Nothing of it was run. A checkpoint may hold tensors, '
            'plain containers and what mmengine writes. If you know who wrote the file and trust '
            'its content, load it in a Python of your own, save its `state_dict` alone and load '
            'that file instead.'
        )
    # torch puts a page of advice around the reason.
    reason = str(error).partition('WeightsUnpickler error: ')[2] or str(error)
    return (
        f'checkpoint {filename!r} cannot be loaded ({type(error).__name__}: '
        f'{reason.strip().partition(chr(10))[0]}). Is the file whole, and written by torch.save?'
    )


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
