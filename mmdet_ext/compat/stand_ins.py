"""Reader of files in which a project saved whole objects, without any class or function of theirs.

Such a file is a zip archive of torch: the tensors' bytes, and a pickle that names classes and
functions to call. Here none of them is looked up. Tensors, numbers, text and plain containers are
read, and every other object becomes a `Recorded`: the name of its class, what it was made of, and
its state. Nothing else is called, and no state of a file is set on anything but a record.
"""

from __future__ import annotations

import math
import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from mmdet_ext.compat.weights import ConversionError

#: Number types by torch's names of storages.
_STORAGES = {
    'DoubleStorage': torch.float64,
    'FloatStorage': torch.float32,
    'HalfStorage': torch.float16,
    'BFloat16Storage': torch.bfloat16,
    'LongStorage': torch.int64,
    'IntStorage': torch.int32,
    'ShortStorage': torch.int16,
    'CharStorage': torch.int8,
    'ByteStorage': torch.uint8,
    'BoolStorage': torch.bool,
}


class Recorded:
    """Record of an object of a class that is not looked up.

    Attributes:
        name: of its class or of the function that made it, such as ``models.common.Conv``.
        made_of: arguments with which it was made.
        state: what was to be set as its state; None for nothing.
        items: what was to be put into it, where it is a container.
    """

    name = ''

    def __new__(cls, *args: Any, **_: Any) -> Recorded:
        """Make a record; nothing is called."""
        record = super().__new__(cls)
        record.made_of, record.state, record.items = args, None, []
        return record

    def __init__(self, *_: Any, **__: Any) -> None:
        self.made_of: tuple[Any, ...]
        self.state: Any
        self.items: list[Any]

    def __call__(self, *args: Any) -> Recorded:
        """Make a record of a call of what is recorded; nothing is called."""
        return type(self)(*args)

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items.append((key, value))

    def append(self, value: Any) -> None:
        """Record an element."""
        self.items.append(value)

    def extend(self, values: Any) -> None:
        """Record elements."""
        self.items.extend(values)

    add = append

    @property
    def attributes(self) -> dict[str, Any]:
        """The attributes of the object, by name; none where its state is something else."""
        return self.state if isinstance(self.state, dict) else {}


class _Sealed:
    """Base of what a pickle may hold, but may not change."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError('a state is set on what has none')


class _Held(_Sealed):
    """A tensor, out of reach of the pickle."""

    __slots__ = ('value',)

    def __init__(self, value: Tensor) -> None:
        self.value = value


class _Admitted(_Sealed):
    """A function that a pickle may call."""

    __slots__ = ('_function',)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)


class _StorageType(_Sealed):
    """Number type of a storage."""

    __slots__ = ('dtype',)

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype


class _Storage(_Sealed):
    """Numbers of a file, in a row."""

    __slots__ = ('numbers',)

    def __init__(self, numbers: Tensor) -> None:
        self.numbers = numbers


class _Dict(dict[Any, Any]):
    """Ordered dict without attributes of its own."""

    def __setstate__(self, state: Any) -> None:
        """Leave out the state, which holds the versions of a state dict's modules."""


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> _Held:
    """Replace ``torch._utils._rebuild_tensor_v2``."""
    if not isinstance(storage, _Storage):
        raise pickle.UnpicklingError('a tensor has no storage')
    if math.prod(size) > len(storage.numbers):
        raise pickle.UnpicklingError(
            f'a tensor of {math.prod(size)} numbers has a storage of {len(storage.numbers)}'
        )
    return _Held(torch.as_strided(storage.numbers, size, stride, offset).clone())


def _parameter(data: Any, *_: Any) -> Any:
    """Replace ``torch._utils._rebuild_parameter``: a parameter is its tensor."""
    return data


_ADMITTED: dict[tuple[str, str], Callable[..., Any]] = {
    ('torch._utils', '_rebuild_tensor_v2'): _tensor,
    ('torch._utils', '_rebuild_parameter'): _parameter,
    ('torch._utils', '_rebuild_parameter_with_state'): _parameter,
    ('torch', 'Size'): tuple,
    ('collections', 'OrderedDict'): _Dict,
    ('builtins', 'set'): set,
    ('__builtin__', 'set'): set,
}


class _Reader(pickle.Unpickler):
    """Unpickler that looks up nothing."""

    def __init__(self, file: BinaryIO, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(file)
        self._archive, self._folder = archive, folder
        self._storages: dict[str, _Storage] = {}
        self._classes: dict[str, type[Recorded]] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Return a function of this module, or a class of records."""
        if module in ('torch', 'torch.storage') and name in _STORAGES:
            return _StorageType(_STORAGES[name])
        function = _ADMITTED.get((module, name))
        if function is not None:
            return _Admitted(function)
        full = f'{module}.{name}'
        if full not in self._classes:
            self._classes[full] = type('Recorded', (Recorded,), {'name': full})
        return self._classes[full]

    def persistent_load(self, reference: Any) -> _Storage:
        """Read the numbers of a storage."""
        kind, of_type, key, _, count = reference
        if kind != 'storage' or not isinstance(of_type, _StorageType):
            raise pickle.UnpicklingError(f'a reference to {kind!r}')
        if key not in self._storages:
            entry = self._archive.getinfo(f'{self._folder}data/{key}')
            size = count * of_type.dtype.itemsize
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != size:
                raise pickle.UnpicklingError(
                    f'tensor {key} has {entry.file_size} bytes, not {size}, or is compressed'
                )
            content = bytearray(self._archive.read(entry))
            empty = torch.empty(0, dtype=of_type.dtype)
            numbers = torch.frombuffer(content, dtype=of_type.dtype) if content else empty
            self._storages[key] = _Storage(numbers)
        return self._storages[key]


def read_recorded(path: Path) -> Any:
    """Read a file that ``torch.save`` wrote, with records in place of all objects.

    Args:
        path: The file, of torch's zip format (torch 1.6 and newer).

    Returns:
        Its content: tensors, plain containers and `Recorded`.

    Raises:
        ConversionError: If it is no such file, is damaged, or holds a network as TorchScript.
        FileNotFoundError: If there is none.
    """
    if not path.is_file():
        raise FileNotFoundError(f'there is no file {path}')
    if not zipfile.is_zipfile(path):
        raise ConversionError(
            f'{path} is no archive of torch.save, or is cut. Give the checkpoint (.pt, .pth) as '
            'it was written, by torch 1.6 or newer; an exported model has no names of weights'
        )
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if any(name.endswith('/constants.pkl') for name in names):
                raise ConversionError(
                    f'{path} is a TorchScript archive, which holds code. Give the checkpoint from '
                    'which it was exported'
                )
            (pickled,) = [name for name in names if name.split('/')[1:] == ['data.pkl']]
            folder = pickled.removesuffix('data.pkl')
            with archive.open(pickled) as file:
                return _released(_Reader(file, archive, folder).load())  # type: ignore[arg-type]
    except ConversionError:
        raise
    except Exception as error:  # a damaged pickle raises errors of many types
        raise ConversionError(
            f'{path} cannot be read ({type(error).__name__}: {error}). Is the file whole, and '
            'written by torch.save?'
        ) from error


def _released(content: Any) -> Any:
    """Put tensors in the place of what holds them, in dicts, lists, tuples and records."""
    seen: dict[int, Any] = {}

    def release(value: Any) -> Any:
        if isinstance(value, _Held):
            return value.value
        if not isinstance(value, (dict, list, tuple, Recorded)):
            return value
        if id(value) in seen:
            return seen[id(value)]
        seen[id(value)] = value
        if isinstance(value, dict):
            for key in value:
                value[key] = release(value[key])
        elif isinstance(value, list):
            value[:] = [release(each) for each in value]
        elif isinstance(value, tuple):
            seen[id(value)] = tuple(release(each) for each in value)
        else:
            value.state, value.items = release(value.state), release(value.items)
        return seen[id(value)]

    return release(content)


def module_weights(module: Recorded) -> dict[str, Tensor]:
    """Return the parameters and buffers of a recorded module of torch, as its ``state_dict()``.

    Args:
        module: Record of an object of ``torch.nn.Module``.

    Raises:
        ConversionError: If it is none.
    """
    if '_modules' not in module.attributes:
        raise ConversionError(f'an object of {module.name} is no module of torch')
    return dict(_named(module, ''))


def _named(module: Recorded, prefix: str) -> Iterator[tuple[str, Tensor]]:
    own = module.attributes
    unsaved = own.get('_non_persistent_buffers_set') or ()
    for table in ('_parameters', '_buffers'):
        for name, value in (own.get(table) or {}).items():
            if isinstance(value, Tensor) and name not in unsaved:
                yield f'{prefix}{name}', value
    for name, child in (own.get('_modules') or {}).items():
        if isinstance(child, Recorded):
            yield from _named(child, f'{prefix}{name}.')
