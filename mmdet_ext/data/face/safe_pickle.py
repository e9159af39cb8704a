"""Safe reader of pickles of bytes, numbers, lists, tuples and numpy arrays, and nothing else.

A pickle from the internet is a program: it names functions and calls them. This reader admits only
the names that numpy and Python write for arrays, numbers and bytes. A stand-in replaces each of
these functions; it only keeps and checks its arguments. Arrays are made from checked bytes.
Instructions that these do not need (dictionaries, instances, extension codes) are refused too.
"""

from __future__ import annotations

import io
import math
import os
import pickle
import pickletools
import re
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np

#: numpy 2 renamed numpy.core; files with either name are in use.
_NUMPY_CORES = ('numpy._core', 'numpy.core')
_OPCODES = frozenset(
    'PROTO FRAME STOP MARK POP POP_MARK DUP NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 '
    'LONG LONG1 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES '
    'BINBYTES8 BYTEARRAY8 UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8 EMPTY_LIST LIST APPEND '
    'APPENDS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 GET BINGET LONG_BINGET PUT BINPUT '
    'LONG_BINPUT MEMOIZE GLOBAL STACK_GLOBAL INST REDUCE BUILD READONLY_BUFFER'.split()
)
_DTYPE_CODE = re.compile(r'b1|[iu][1248]|f[248]')
_MAX_DEPTH = 16
_MAX_DIMENSIONS = 32


class UnsafePickleError(ValueError):
    """Error for a pickle that names or holds something that is not admitted. Nothing of it ran."""


class BrokenPickleError(ValueError):
    """Error for a file that is not a pickle, or is cut or damaged."""


def load_safe_pickle(path: str | os.PathLike[str]) -> Any:
    """Read a pickle of bytes, numbers, lists, tuples and numpy arrays from a file.

    Strings of Python 2 and bytearrays become bytes. Arrays may hold numbers or bools. A bool, an
    int or a float of numpy becomes that of Python.

    Args:
        path: the file.

    Returns:
        The content of the file, in new lists, tuples and arrays.

    Raises:
        FileNotFoundError: if there is no such file.
        UnsafePickleError: if the file names or holds anything else, which the error names. Nothing
            of the file was run.
        BrokenPickleError: if the file is not a pickle, or is cut.
    """
    return loads_safe_pickle(Path(path).read_bytes(), str(path))


def loads_safe_pickle(content: bytes, name: str = 'the pickle') -> Any:
    """Read a pickle from bytes, as `load_safe_pickle` does from a file.

    Args:
        content: the pickle.
        name: name of the pickle in errors.

    >>> loads_safe_pickle(pickle.dumps(([b'one', b'two'], [True])))
    ([b'one', b'two'], [True])
    >>> loads_safe_pickle(pickle.dumps(print))
    Traceback (most recent call last):
    mmdet_ext.data.face.safe_pickle.UnsafePickleError: the pickle was refused: it names \
'builtins.print', and loading that could run code. Nothing of it was run. It may hold bytes, \
numbers, lists, tuples and numpy arrays only
    """
    try:
        unpickler = _Unpickler(io.BytesIO(content), encoding='bytes')
        return _finished(unpickler.load(), {}, 0)
    except UnsafePickleError as error:
        raise UnsafePickleError(
            f'{name} was refused: it {error}. Nothing of it was run. It may hold bytes, '
            'numbers, lists, tuples and numpy arrays only'
        ) from None
    except Exception as error:  # the parser raises many types of errors on damaged files
        raise BrokenPickleError(
            f'{name} cannot be read as a pickle ({type(error).__name__}: {error}). '
            'Is the file whole, and a pickle?'
        ) from error


def _refused(name: str) -> UnsafePickleError:
    """Make the error for a name that is not admitted."""
    return UnsafePickleError(f'names {name!r}, and loading that could run code')


class _StandIn:
    """Stand-in for a function that a pickle may name; it checks the arguments of a call.

    It has neither attributes nor a state that a pickle could set.
    """

    __slots__ = ()
    name = ''

    def __setstate__(self, state: Any) -> None:
        raise UnsafePickleError(f'sets the state of {self.name}')

    def __call__(self, *args: Any) -> Any:
        raise UnsafePickleError(f'calls {self.name}')


class _Encode(_StandIn):
    """``_codecs.encode(text, 'latin1')``, with which Python 3 writes bytes for Python 2."""

    __slots__ = ()
    name = '_codecs.encode'

    def __call__(self, *args: Any) -> Any:
        if len(args) != 2 or not isinstance(args[0], str) or args[1] not in ('latin1', b'latin1'):
            raise UnsafePickleError(f'calls {self.name} for something else than latin1')
        return args[0].encode('latin1')


class _EmptyBytes(_StandIn):
    """``bytes()``, as Python 3 writes empty bytes for Python 2."""

    __slots__ = ()
    name = 'bytes'

    def __call__(self, *args: Any) -> Any:
        if args:
            raise UnsafePickleError('calls bytes with arguments')
        return b''


class _ByteArray(_StandIn):
    """``bytearray()``, or that of bytes or of latin1 text, as Python writes it before protocol 5.

    A number of bytes is refused, because it would be allocated.
    """

    __slots__ = ()
    name = 'bytearray'

    def __call__(self, *args: Any) -> Any:
        if not args:
            return b''
        if len(args) == 1 and type(args[0]) is bytes:
            return args[0]
        if len(args) == 2 and type(args[0]) is str and _text(args[1]) in ('latin-1', 'latin1'):
            return args[0].encode('latin1')
        raise UnsafePickleError(f"names 'bytearray' and calls it with {_shown(args)}")


class _NdArray(_StandIn):
    """``numpy.ndarray``, which may be named but not called: a call would read bytes as pointers."""

    __slots__ = ()
    name = 'numpy.ndarray'


class _Dtype(_StandIn):
    """``numpy.dtype(code, align, copy)``, for numbers and bools."""

    __slots__ = ()
    name = 'numpy.dtype'

    def __call__(self, *args: Any) -> Any:
        code = _text(args[0]) if args else None
        if code is None or not _DTYPE_CODE.fullmatch(code):
            raise UnsafePickleError(f'has a numpy.dtype of {_shown(args)}, not of numbers')
        return _DtypeDraft(code)


class _Reconstruct(_StandIn):
    """``numpy._core.multiarray._reconstruct(ndarray, (0,), b'b')``, which begins an array."""

    __slots__ = ()
    name = 'numpy _reconstruct'

    def __call__(self, *args: Any) -> Any:
        if len(args) != 3 or not isinstance(args[0], _NdArray) or args[1] != (0,):
            raise UnsafePickleError(f'calls {self.name} with {_shown(args)}')
        return _ArrayDraft()


class _FromBuffer(_StandIn):
    """``numpy._core.numeric._frombuffer(bytes, dtype, shape, order)``, an array of protocol 5."""

    __slots__ = ()
    name = 'numpy _frombuffer'

    def __call__(self, *args: Any) -> Any:
        if len(args) != 4 or args[3] not in ('C', 'F'):
            raise UnsafePickleError(f'calls {self.name} with {_shown(args[2:])}')
        draft = _ArrayDraft()
        draft.value = _array(args[0], args[1], args[2], args[3])
        return draft


class _Scalar(_StandIn):
    """``numpy._core.multiarray.scalar(dtype, bytes)``, for a bool, an int or a float."""

    __slots__ = ()
    name = 'numpy scalar'

    def __call__(self, *args: Any) -> Any:
        if len(args) != 2 or not isinstance(args[0], _DtypeDraft):
            raise UnsafePickleError(f'calls {self.name} with {_shown(args)}')
        return _array(args[1], args[0], (), 'C').item()


class _DtypeDraft:
    """Draft of a dtype; a pickle sets its byte order."""

    __slots__ = ('dtype',)

    def __init__(self, code: str) -> None:
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        order = _text(state[1]) if isinstance(state, tuple) and len(state) >= 5 else None
        if order not in ('<', '>', '|', '=') or any(field is not None for field in state[2:5]):
            raise UnsafePickleError(f'gives a numpy.dtype the state {_shown(state)}')
        if order in ('<', '>'):
            self.dtype = self.dtype.newbyteorder('<' if order == '<' else '>')


class _ArrayDraft:
    """Draft of an array; a pickle sets its content."""

    __slots__ = ('value',)

    def __init__(self) -> None:
        self.value: np.ndarray[Any, Any] | None = None

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[3], (bool, int)):
            raise UnsafePickleError('gives a numpy array a state of another form')
        _, shape, dtype, fortran, raw = state
        self.value = _array(raw, dtype, shape, 'F' if fortran else 'C')


def _array(raw: Any, draft: Any, shape: Any, order: Any) -> np.ndarray[Any, Any]:
    """Make a new array from bytes, after checking that shape, dtype and bytes fit."""
    if not isinstance(draft, _DtypeDraft) or not isinstance(raw, (bytes, bytearray, memoryview)):
        raise UnsafePickleError('makes a numpy array of something else than bytes and a dtype')
    if (
        not isinstance(shape, tuple)
        or len(shape) > _MAX_DIMENSIONS
        or not all(type(side) is int and side >= 0 for side in shape)
    ):
        raise UnsafePickleError(f'has a numpy array of shape {_shown(shape)}')
    needed, given = math.prod(shape) * draft.dtype.itemsize, memoryview(raw).nbytes
    if needed != given:
        raise UnsafePickleError(
            f'has a numpy array of shape {_shown(shape)} and dtype {draft.dtype}, {needed} bytes, '
            f'with {given} bytes'
        )
    flat = np.frombuffer(raw, draft.dtype) if given else np.empty(0, draft.dtype)
    if draft.dtype.kind == 'b':  # any byte other than 0 is True
        flat = flat.view(np.uint8) != 0
    return flat.reshape(shape, order=order).astype(flat.dtype.newbyteorder('='), copy=True)


def _text(value: Any) -> str | None:
    """Return text as a string (Python 2 writes it as bytes); None for anything else."""
    if isinstance(value, bytes):
        return value.decode('latin1')
    return value if isinstance(value, str) else None


def _shown(value: Any) -> str:
    """Format a value of the file for a message, shortened if it is long."""
    if isinstance(value, tuple):
        return f'({", ".join(_shown(entry) for entry in value[:8])})'
    if isinstance(value, (str, bytes, int, type(None))):
        return repr(value)[:60] if not isinstance(value, int) or abs(value) < 10**30 else 'a number'
    return getattr(value, 'name', f'a {type(value).__name__}')


_STAND_INS: dict[tuple[str, str], _StandIn] = {
    ('_codecs', 'encode'): _Encode(),
    ('builtins', 'bytes'): _EmptyBytes(),
    ('__builtin__', 'bytes'): _EmptyBytes(),
    ('builtins', 'bytearray'): _ByteArray(),
    ('__builtin__', 'bytearray'): _ByteArray(),
    ('numpy', 'ndarray'): _NdArray(),
    ('numpy', 'dtype'): _Dtype(),
    **{(f'{core}.multiarray', '_reconstruct'): _Reconstruct() for core in _NUMPY_CORES},
    **{(f'{core}.multiarray', 'scalar'): _Scalar() for core in _NUMPY_CORES},
    **{(f'{core}.numeric', '_frombuffer'): _FromBuffer() for core in _NUMPY_CORES},
}


class _Instructions(dict[int, Any]):
    """Table of the admitted instructions: code -> method."""

    def __missing__(self, code: int) -> Any:
        name = next((one.name for one in pickletools.opcodes if ord(one.code) == code), None)
        if name is None:
            raise pickle.UnpicklingError(f'no instruction has the code {code}')
        if 'DICT' in name or name in ('SETITEM', 'SETITEMS', 'EMPTY_SET', 'ADDITEMS', 'FROZENSET'):
            raise UnsafePickleError('holds a dict or a set')
        if name == 'LONG4':
            raise UnsafePickleError('holds a number of more than 255 bytes')
        raise UnsafePickleError(f'has the instruction {name}')


class _Unpickler(pickle._Unpickler):
    """Unpickler that knows only the stand-ins and the instructions above.

    It derives from Python's unpickler written in Python. The one written in C has no table of
    instructions, and crashes on deep nests.
    """

    dispatch = _Instructions(
        (ord(opcode.code), pickle._Unpickler.dispatch[ord(opcode.code)])
        for opcode in pickletools.opcodes
        if opcode.name in _OPCODES
    )

    def load_bytearray8(self) -> None:
        """Read a bytearray; unlike Python's method, do not first allocate the size claimed."""
        machine: Any = self  # `load` sets its methods `read` and `append`
        (size,) = struct.unpack('<Q', machine.read(8))
        machine.append(bytearray(machine.read(min(size, sys.maxsize))))

    dispatch[ord(pickle.BYTEARRAY8)] = load_bytearray8

    def find_class(self, module: str, name: str, /) -> Any:
        """Return the stand-in of a name, or raise UnsafePickleError."""
        if not module or not name:
            raise pickle.UnpicklingError('a name is cut off')
        if (module, name) not in _STAND_INS:
            raise _refused(f'{module}.{name}')
        return _STAND_INS[module, name]

    def persistent_load(self, pid: Any, /) -> Any:
        """Refuse references to objects outside of the file."""
        raise UnsafePickleError('holds a reference to something outside of the file')


def _finished(value: Any, done: dict[int, tuple[Any, Any]], depth: int) -> Any:
    """Replace drafts by arrays in the result of the unpickler; raise for values not admitted.

    Args:
        value: result of the unpickler, or a part of it.
        done: id -> value and its result, so that shared values are replaced once.
        depth: number of containers around the value.
    """
    if type(value) in (bytes, bool, int, float):
        return value
    if type(value) is bytearray:
        return bytes(value)
    if depth > _MAX_DEPTH:
        raise UnsafePickleError(f'nests its lists deeper than {_MAX_DEPTH}')
    if id(value) in done:
        return done[id(value)][1]
    if type(value) is list:
        result: Any = [_finished(entry, done, depth + 1) for entry in value]
    elif type(value) is tuple:
        result = tuple(_finished(entry, done, depth + 1) for entry in value)
    elif type(value) is _ArrayDraft and value.value is not None:
        result = value.value
    else:
        kind = getattr(value, 'name', type(value).__name__)
        raise UnsafePickleError(f'holds a value of the kind {kind}')
    done[id(value)] = value, result
    return result
