"""Safe pickles: bytes, numbers and arrays are read; names that could run code are refused."""

from __future__ import annotations

import builtins
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmdet_ext.data.face import safe_pickle
from mmdet_ext.data.face.safe_pickle import (
    BrokenPickleError,
    UnsafePickleError,
    load_safe_pickle,
    loads_safe_pickle,
)

CONTENT = (
    [b'', b'\xff\xd8\x00image', bytes(range(256)), b'x' * 300],
    [True, False, False, True],
)
ARRAYS = [
    np.arange(6, dtype=np.uint8),
    np.arange(24.0).reshape(2, 3, 4),
    np.asfortranarray(np.arange(6).reshape(2, 3)),
    np.arange(10, dtype=np.int16)[::3],
    np.array([1.5, -2], '>f4'),
    np.array([True, False]),
    np.zeros((0, 3), np.float16),
    np.array(7),
    np.frombuffer(b'read-only', np.uint8),
]


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_content_of_a_bin_file_is_read(protocol: int) -> None:
    loaded = loads_safe_pickle(pickle.dumps(CONTENT, protocol))
    assert loaded == CONTENT
    assert [type(flag) for flag in loaded[1]] == [bool] * 4


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize('array', ARRAYS, ids=lambda array: f'{array.dtype.str}{array.shape}')
def test_arrays(array: np.ndarray, protocol: int) -> None:
    loaded, again = loads_safe_pickle(pickle.dumps([array, array], protocol))
    assert loaded is again
    assert loaded.dtype == array.dtype.newbyteorder('=') and loaded.dtype.isnative
    np.testing.assert_array_equal(loaded, array)
    loaded[...] = 0  # the array is writable


NUMBERS = [0, 1, -7, 255, 65536, 2**31, -(2**40), 2**200, 0.0, 1.0, -2.5, 1e300, True, False]


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_numbers_keep_value_and_kind(protocol: int) -> None:
    loaded = loads_safe_pickle(pickle.dumps(NUMBERS, protocol))
    assert loaded == NUMBERS
    assert [type(number) for number in loaded] == [type(number) for number in NUMBERS]


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    ('number', 'kind'),
    [
        (np.bool_(True), bool),
        (np.uint8(200), int),
        (np.int64(-3), int),
        (np.float16(0.5), float),
        (np.float32(1), float),
        (np.float64(-2.25), float),
    ],
    ids=lambda value: getattr(type(value), '__name__', ''),
)
def test_numbers_of_numpy_become_those_of_python(number: Any, kind: type, protocol: int) -> None:
    loaded = loads_safe_pickle(pickle.dumps([number], protocol))
    assert loaded == [number.item()] and type(loaded[0]) is kind


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_bytearrays_become_bytes(protocol: int) -> None:
    data = [bytearray(b''), bytearray(range(256)), bytearray(b'x' * 70_000)]
    loaded = loads_safe_pickle(pickle.dumps(data, protocol))
    assert loaded == [bytes(one) for one in data]
    assert {type(one) for one in loaded} == {bytes}


def test_bytearray_of_python_2() -> None:
    content = b"c__builtin__\nbytearray\n(V\xff\xd8\nS'latin-1'\ntR."
    assert loads_safe_pickle(content) == b'\xff\xd8'


@pytest.mark.parametrize('core', ['numpy.core', 'numpy._core'])
def test_files_of_numpy_1_and_2(core: str) -> None:
    for protocol in (2, 4, 5):
        content = pickle.dumps([np.arange(3), np.bool_(True)], protocol)
        now = np.zeros(0).__reduce__()[0].__module__.rpartition('.')[0]
        # In protocol 4, strings and frames are written with their lengths.
        for length in range(60):
            name = f'{now}.{"x" * length}'
            content = content.replace(
                bytes([len(name)]) + now.encode(),
                bytes([len(name) + len(core) - len(now)]) + core.encode(),
            )
        if protocol == 2:
            content = pickle.dumps([np.arange(3), np.bool_(True)], 2).replace(
                now.encode(), core.encode()
            )
        elif now != core:
            frame = int.from_bytes(content[3:11], 'little')
            content = content[:3] + (len(content) - 11).to_bytes(8, 'little') + content[11:]
            assert frame > 0
        assert core.encode() in content and (core == now or now.encode() not in content)
        array, flag = loads_safe_pickle(content)
        assert array.tolist() == [0, 1, 2] and flag is True


def test_file_of_python_2() -> None:
    """Python 2 writes bytes, and the parts of an array, as strings."""
    lists = b'\x80\x02]q\x00(U\x03\xff\xd8\xffq\x01U\x00q\x02e]q\x03(\x88\x89e\x86q\x04.'
    assert loads_safe_pickle(lists) == ([b'\xff\xd8\xff', b''], [True, False])
    text = b"(lp0\nS'\\xff\\xd8'\np1\na."
    assert loads_safe_pickle(text) == [b'\xff\xd8']
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\np0\n(cnumpy\nndarray\np1\n(I0\ntp2\nS'b'\np3\n"
        b"tp4\nRp5\n(I1\n(I2\ntp6\ncnumpy\ndtype\np7\n(S'i2'\np8\nI0\nI1\ntp9\nRp10\n(I3\nS'>'\n"
        b"p11\nNNNI-1\nI-1\nI0\ntp12\nbI00\nS'\\x00\\x01\\x01\\x00'\np13\ntp14\nb."
    )
    assert pickle.loads(array, encoding='bytes').tolist() == [1, 256]
    assert loads_safe_pickle(array).tolist() == [1, 256]


class Calls:
    """Object that is pickled as a call."""

    def __init__(self, function: Any, *args: Any, state: Any = None) -> None:
        self.call = function, args
        self.state = state

    def __reduce__(self) -> tuple[Any, ...]:
        return (*self.call, self.state) if self.state is not None else self.call


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    ('function', 'name'),
    [
        (os.system, f'{os.name}.system'),
        (eval, 'eval'),
        (exec, 'exec'),
        (getattr, 'getattr'),
        (builtins.__import__, '__import__'),
        (open, 'open'),
        (np.load, 'numpy.load'),
        (np.fromfile, 'fromfile'),
        (np.memmap, 'memmap'),
        (pickle.loads, 'loads'),
        (bytearray, 'bytearray'),
        (np.frombuffer, 'frombuffer'),
        (Path, 'Path'),
    ],
)
def test_calls_are_refused_by_name(
    function: Any, name: str, protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    hostile = ([b'image'], [True, Calls(function, 'touch ran')])
    with pytest.raises(
        UnsafePickleError,
        match=rf"^x.bin was refused: it names '.*{name}'.*Nothing"
        ' of it was run',
    ):
        loads_safe_pickle(pickle.dumps(hostile, protocol), 'x.bin')
    assert list(tmp_path.iterdir()) == []


def test_a_hostile_file_runs_code_when_read_by_pickle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path('x.bin').write_bytes(b"cposix\nsystem\n(S'touch ran'\ntR.")
    with pytest.raises(UnsafePickleError, match="names 'posix.system'"):
        load_safe_pickle('x.bin')
    assert not Path('ran').exists()
    pickle.loads(Path('x.bin').read_bytes())
    assert Path('ran').exists()


DTYPE = b'cnumpy\ndtype\n(S"u1"\nI0\nI1\ntR'
BEGIN = b'cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS"b"\ntR'


@pytest.mark.parametrize(
    ('content', 'reason'),
    {
        'instance': (b"(S'touch ran'\nios\nsystem\n.", "names 'os.system'"),
        'new object': (b'\x80\x02cnumpy\nndarray\n)\x81.', 'instruction NEWOBJ'),
        'by the stack': (b'\x80\x04\x8c\x02os\x8c\x06system\x93.', "names 'os.system'"),
        'dotted name': (
            b'\x80\x04\x8c\x05numpy\x8c\x11ndarray.__class__\x93.',
            "names 'numpy.ndarray.__class__'",
        ),
        'persistent id': (b'Pid\n.', 'instruction PERSID'),
        'extension code': (b'\x80\x02\x82\x01.', 'instruction EXT1'),
        'next buffer': (b'\x80\x05\x97.', 'instruction NEXT_BUFFER'),
        'call of ndarray': (b'cnumpy\nndarray\n((I1\nttR.', 'calls numpy.ndarray'),
        'object dtype': (b'cnumpy\ndtype\n(S"O8"\nI0\nI1\ntR.', "numpy.dtype of \\(b'O8', 0, 1\\)"),
        'structured dtype': (b'cnumpy\ndtype\n((S"a"\nS"O"\nttR.', 'not of numbers'),
        'text dtype': (b'cnumpy\ndtype\n(S"U9"\nI0\nI1\ntR.', 'not of numbers'),
        'dtype with fields': (
            DTYPE + b'(I3\nS"|"\nN(S"a"\nt(tI8\nI8\nI0\ntb.',
            'numpy.dtype the state',
        ),
        'state of a stand-in': (b'cnumpy\ndtype\n(Ntb.', 'sets the state of numpy.dtype'),
        'state of encode': (b'c_codecs\nencode\n(Ntb.', 'sets the state of _codecs.encode'),
        'encode to anything': (b'c_codecs\nencode\n(Va\nVrot13\ntR.', 'something else than latin1'),
        'bytes of a size': (
            b'c__builtin__\nbytes\n(I99999999999\ntR.',
            'calls bytes with arguments',
        ),
        'reconstruct another': (
            b'cnumpy.core.multiarray\n_reconstruct\n(c_codecs\nencode\n(I0\ntS"b"\ntR.',
            'numpy _reconstruct with \\(_codecs.encode, \\(0\\)',
        ),
        'array that is none': (BEGIN + b'.', 'kind _ArrayDraft'),
        'huge shape': (
            BEGIN + b'(I1\n(I99999999999\nt' + DTYPE + b'I00\nS"ab"\ntb.',
            '99999999999 bytes, with 2 bytes',
        ),
        'negative shape': (
            BEGIN + b'(I1\n(I-1\nI-2\nt' + DTYPE + b'I00\nS"ab"\ntb.',
            'shape \\(-1, -2\\)',
        ),
        'bytes too many': (BEGIN + b'(I1\n(I1\nt' + DTYPE + b'I00\nS"ab"\ntb.', '1 bytes, with 2'),
        'list for bytes': (
            BEGIN + b'(I1\n(I1\nt' + DTYPE + b'I00\n(lp0\ntb.',
            'something else than',
        ),
        'a class': (b'cnumpy\nndarray\n.', 'kind numpy.ndarray'),
        'a dtype': (DTYPE + b'.', 'kind _DtypeDraft'),
        'a dict': (pickle.dumps({}), 'holds a dict or a set'),
        'a set': (pickle.dumps({1}, 4), 'holds a dict or a set'),
        'a number of many bytes': (pickle.dumps([1 << 4000]), 'a number of more than 255 bytes'),
        'a complex number': (pickle.dumps([1j]), "names '(__builtin__|builtins).complex'"),
        'a text': (pickle.dumps(['text']), 'holds a value of the kind str'),
        'none': (pickle.dumps([None]), 'holds a value of the kind NoneType'),
        'bytearray of a size': (
            b'c__builtin__\nbytearray\n(I99999999999\ntR.',
            "names 'bytearray' and calls it with \\(99999999999\\)",
        ),
        'bytearray of numbers': (
            b'c__builtin__\nbytearray\n((lp0\nI1\natR.',
            "names 'bytearray' and calls it with \\(a list\\)",
        ),
        'bytearray of another codec': (
            b'c__builtin__\nbytearray\n(Va\nVrot13\ntR.',
            "calls it with \\('a', 'rot13'\\)",
        ),
        'state of bytearray': (b'c__builtin__\nbytearray\n(Ntb.', 'sets the state of bytearray'),
        'a class of numbers': (b'c__builtin__\nint\n.', "names '__builtin__.int'"),
        'numpy text': (pickle.dumps(np.str_('a')), "numpy.dtype of \\('U1'"),
        'numpy complex': (pickle.dumps(np.complex64(1)), "numpy.dtype of \\('c8'"),
        'a scalar of raw bytes': (
            b'cnumpy.core.multiarray\nscalar\n(S"f8"\nS"ab"\ntR.',
            'calls numpy scalar with',
        ),
        'object array': (pickle.dumps(np.array([None])), "numpy.dtype of \\('O8'"),
        'a list in itself': (b'(lp0\ng0\na.', 'deeper than 16'),
        'a very deep list': (b'(l' * 100_000 + b'a' * 99_999 + b'.', 'deeper than 16'),
    }.values(),
)
def test_crafted_pickles_are_refused(content: bytes, reason: str) -> None:
    with pytest.raises(UnsafePickleError, match=reason):
        loads_safe_pickle(content)


def test_a_claimed_size_allocates_no_memory() -> None:
    with pytest.raises(BrokenPickleError):
        loads_safe_pickle(b'\x80\x05\x96' + (2**40).to_bytes(8, 'little') + b'abc.')


def test_nested_lists_of_one_shared_list_are_read_quickly() -> None:
    """Each of 15 lists holds the list below ten times, which makes 10 ** 15 leaves."""
    value: list[Any] = [b'leaf']
    for _ in range(15):
        value = [value] * 10
    loaded = loads_safe_pickle(pickle.dumps(value))
    for _ in range(15):
        loaded = loaded[9]
    assert loaded == [b'leaf']


def test_stand_ins_cannot_be_changed() -> None:
    """A pickle cannot set an attribute of a stand-in, which the next pickle would see."""
    before = {key: type(one).__dict__.copy() for key, one in safe_pickle._STAND_INS.items()}
    for module, name in safe_pickle._STAND_INS:
        state = b'(N(S"name"\nS"x"\nttb.'
        with pytest.raises(UnsafePickleError, match='sets the state of'):
            loads_safe_pickle(f'c{module}\n{name}\n'.encode() + state)
    assert {key: type(one).__dict__.copy() for key, one in safe_pickle._STAND_INS.items()} == before
    assert all(not hasattr(one, '__dict__') for one in safe_pickle._STAND_INS.values())


def test_cut_pickles_and_other_files_are_refused(tmp_path: Path) -> None:
    content = pickle.dumps(CONTENT, 4)
    for cut in range(0, len(content), 7):
        with pytest.raises(BrokenPickleError, match='Is the file whole'):
            loads_safe_pickle(content[:cut])
    (tmp_path / 'x.bin').write_bytes(b'\xff\xd8\xff an image')
    with pytest.raises(BrokenPickleError, match='x.bin cannot be read as a pickle'):
        load_safe_pickle(tmp_path / 'x.bin')
    with pytest.raises(FileNotFoundError):
        load_safe_pickle(tmp_path / 'absent.bin')


@pytest.mark.filterwarnings('ignore:invalid escape sequence')
def test_damaged_pickles_never_load_anything_else() -> None:
    """Each of 5,000 damaged files is refused, or loads only admitted values."""
    rng = np.random.default_rng(0)
    sources = [
        pickle.dumps((CONTENT[0][:2], np.arange(4, dtype=np.uint8), True), protocol)
        for protocol in (0, 2, 5)
    ]

    def kinds(value: Any) -> set[type]:
        inner = set().union(*map(kinds, value)) if isinstance(value, (list, tuple)) else set()
        return {type(value)} | inner

    loaded = 0
    for _ in range(5_000):
        content = bytearray(sources[rng.integers(3)])
        for place in rng.integers(0, len(content), rng.integers(1, 4)):
            content[place] = rng.integers(256)
        try:
            value = loads_safe_pickle(bytes(content))
        except (UnsafePickleError, BrokenPickleError):
            continue
        loaded += 1
        assert kinds(value) <= {list, tuple, bytes, bool, int, float, np.ndarray}
    assert loaded > 200
