"""Tests of refusals: files with other content are named, and nothing of them is run."""

from __future__ import annotations

import datetime
import os
import re
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from mmengine.optim import OneCycleParamScheduler
from mmengine.runner import CheckpointLoader

import mmdet_ext
from mmdet_ext.compat.checkpoint import load_from_local
from tests.compat.checkpoint_files import Call, needs_torch_2_6, write_pickle

PACKAGE = Path(mmdet_ext.__file__).parent

pytestmark = needs_torch_2_6


def test_code_is_refused_and_not_run(tmp_path: Path) -> None:
    marker = tmp_path / 'ran'
    torch.save({'state_dict': Call(os.system, f'touch {marker}')}, tmp_path / 'evil.pth')
    with pytest.raises(RuntimeError, match=rf"evil\.pth' was refused: it holds '{os.name}.system'"):
        CheckpointLoader.load_checkpoint(str(tmp_path / 'evil.pth'))
    assert not marker.exists()
    # An unprotected load does run the code.
    torch.load(tmp_path / 'evil.pth', weights_only=False)
    assert marker.exists()


REFUSED = {
    'eval': (Call(eval, '1 + 1'), 'eval'),
    'exec': (Call(exec, 'x = 1'), 'exec'),
    'partial': (Call(types.SimpleNamespace), 'types.SimpleNamespace'),
    'datetime': (datetime.datetime(2024, 1, 1), 'datetime.datetime'),
    'path': (Path('a'), 'Path'),
    'making a schedule': (Call(OneCycleParamScheduler, 1), 'OneCycleParamScheduler'),
    'getattr of a schedule': (Call(getattr, OneCycleParamScheduler, 'step'), 'step'),
    'config of no dict': (Call(ConfigDict, [('a', 1)]), 'ConfigDict'),
    'own class': (Call, 'Call'),
    'getattr of an allowed class': (Call(getattr, HistoryBuffer, '__init__'), '__init__'),
    'getattr of a method not of statistics': (
        Call(getattr, HistoryBuffer, 'register_statistics'),
        'register_statistics',
    ),
    'getattr of numpy': (Call(getattr, np.ndarray, 'tofile'), 'tofile'),
    'getattr of torch': (Call(getattr, torch.Tensor, 'numpy'), 'numpy'),
    'getattr of the same name of torch': (Call(getattr, torch.Tensor, 'mean'), 'mean'),
    'getattr of text': (Call(getattr, 'mean', 'format'), 'format'),
    'getattr by no name': (Call(getattr, HistoryBuffer, ['mean']), 'getattr'),
    'array over bytes': (Call(np.ndarray, (1,), 'O', b'A' * 8), 'numpy.ndarray'),
    'array of numbers': (Call(np.ndarray, (1,), 'f8', b'A' * 8), 'numpy.ndarray'),
    'objects': (np.array([{}], dtype=object), "numpy.dtype('O8')"),
    'text array': (np.array(['a']), "numpy.dtype('U1')"),
    'record': (Call(np.dtype, 'f8,O'), "numpy.dtype('f8,O')"),
    'no name of a dtype': (Call(np.dtype, [('a', 'O')]), 'numpy.dtype'),
    'other byte order': (
        Call(np.dtype, '>f8' if sys.byteorder == 'little' else '<f8'),
        'numpy.dtype',
    ),
    'class of a dtype': (np.dtype('f8').__class__, 'Float64DType'),
    'complex': (np.complex64(1), "numpy.dtype('c8')"),
}


@pytest.mark.parametrize(('content', 'named'), REFUSED.values(), ids=REFUSED)
def test_other_content_is_refused_by_name(content: Any, named: str, tmp_path: Path) -> None:
    path = tmp_path / 'other.pth'
    torch.save({'state_dict': {'a': torch.ones(1)}, 'meta': content}, path)
    with pytest.raises(RuntimeError, match='was refused: it holds') as caught:
        load_from_local(str(path), 'cpu')
    message = str(caught.value)
    assert str(path) in message and 'could run code' in message
    assert named in message.partition('it holds')[2].partition(', and loading')[0]


def test_a_refused_call_names_the_function(tmp_path: Path) -> None:
    """Refuse a call of a statistics method, which a checkpoint may only name."""
    call = Call(HistoryBuffer.mean, HistoryBuffer([1.0], [1]))
    torch.save(call, tmp_path / 'call.pth')
    with pytest.raises(RuntimeError, match=r'cannot be loaded .*HistoryBuffer\.mean'):
        load_from_local(str(tmp_path / 'call.pth'), 'cpu')


def test_a_file_does_not_change_a_dtype(tmp_path: Path) -> None:
    """Ignore the layout in a file: numpy would accept one that reads beyond the array."""
    layout = (3, '<', None, ('far',), {'far': (np.dtype('f8'), 1000)}, 8, 8, 0)
    torch.save(Call(np.dtype, 'f8', False, True, state=layout), tmp_path / 'layout.pth')
    loaded = load_from_local(str(tmp_path / 'layout.pth'), 'cpu')
    assert loaded is np.dtype('f8') and loaded.names is None and loaded.itemsize == 8


def test_an_array_state_of_wrong_length_is_an_error(tmp_path: Path) -> None:
    reconstruct = np.zeros(0).__reduce__()[0]
    state = (1, (1_000_000,), np.dtype('f8'), False, b'A' * 16)
    call = Call(reconstruct, np.ndarray, (0,), b'b', state=state)
    torch.save(call, tmp_path / 'lie.pth')
    with pytest.raises(RuntimeError, match='cannot be loaded .*buffer size'):
        load_from_local(str(tmp_path / 'lie.pth'), 'cpu')


@pytest.mark.parametrize('rest', [None, datetime.datetime(2024, 1, 1)], ids=['loaded', 'refused'])
def test_a_file_does_not_change_the_statistics(rest: Any, tmp_path: Path) -> None:
    """Restore the methods: MMEngine's HistoryBuffer writes those of a pickle into its class."""
    call = Call(HistoryBuffer, state={'statistics_methods': {'mean': HistoryBuffer.max, 'x': 1}})
    torch.save([call, rest], tmp_path / 'poison.pth')
    if rest is None:
        load_from_local(str(tmp_path / 'poison.pth'), 'cpu')
    else:
        with pytest.raises(RuntimeError, match=r"holds 'datetime\.datetime'"):
            load_from_local(str(tmp_path / 'poison.pth'), 'cpu')
    assert set(HistoryBuffer._statistics_methods) == {'min', 'max', 'current', 'mean'}
    assert HistoryBuffer([1.0, 4.0], [1, 1]).statistics('mean') == 2.5


def test_names_without_a_dot_cannot_be_named(tmp_path: Path) -> None:
    def without_module(data: bytes) -> bytes:
        assert b'cmmengine.logging.history_buffer\nHistoryBuffer\n' in data
        return data.replace(b'cmmengine.logging.history_buffer\nHistoryBuffer\n', b'c\nndarray\n')

    path = write_pickle(tmp_path / 'nameless.pth', without_module, [HistoryBuffer])
    with pytest.raises(RuntimeError, match=r"refused: it holds '\.ndarray'"):
        load_from_local(str(path), 'cpu')


FOREIGN = {
    'text': b'no checkpoint\n',
    'empty': b'',
    'image': b'\x89PNG\r\n\x1a\n',
    'noise': bytes(range(200, 256)),
}


@pytest.mark.parametrize('content', FOREIGN.values(), ids=FOREIGN)
def test_other_files_are_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / 'file.pth'
    path.write_bytes(content)
    with pytest.raises(RuntimeError, match=r"file\.pth' cannot be loaded .* Is the file whole"):
        load_from_local(str(path), 'cpu')


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r'none\.pth'):
        CheckpointLoader.load_checkpoint(str(tmp_path / 'none.pth'))


def test_the_load_of_torch_itself_stays_safe(tmp_path: Path) -> None:
    assert torch.load.__module__ == 'torch.serialization'
    torch.save(Call(os.system, 'true'), tmp_path / 'evil.pth')
    with pytest.raises(Exception, match='system'):
        torch.load(tmp_path / 'evil.pth')
    assert not [name for name in os.environ if name.startswith('TORCH_FORCE')]


def test_no_code_switches_the_protection_off() -> None:
    switched_off = re.compile(r'weights_only\s*=\s*(?!True\b)|TORCH_FORCE|pickle\.loads?\b')
    files = [*PACKAGE.rglob('*.py'), *(PACKAGE.parent / 'tools').rglob('*.py')]
    assert len(files) > 10
    found = [
        f'{path}: {match[0]}'
        for path in files
        for match in switched_off.finditer(path.read_text(encoding='utf-8'))
    ]
    assert found == []
    assert switched_off.search('torch.load(path, weights_only=False)')
