"""Files with objects of other projects: what is read, and that nothing of them is run."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mmdet_ext.compat.stand_ins import Recorded, module_weights, read_recorded
from mmdet_ext.compat.weights import ConversionError
from tests.compat.yolov5_files import network, save


def archive(path: Path, pickled: bytes, **numbers: bytes) -> Path:
    """Write an archive as torch does, with a pickle of one's own."""
    with zipfile.ZipFile(path, 'w') as file:
        file.writestr('archive/data.pkl', pickled)
        for key, content in numbers.items():
            file.writestr(f'archive/data/{key[1:]}', content)
    return path


def test_the_weights_of_a_whole_network_are_its_state_dict(tmp_path: Path) -> None:
    model = network().half()
    model.register_buffer('scratch', torch.ones(2), persistent=False)
    path = save({'model': model, 'epoch': 3, 'ema': None}, tmp_path / 'a.pt')
    content = read_recorded(path)
    assert content['epoch'] == 3 and content['ema'] is None
    record = content['model']
    assert isinstance(record, Recorded) and record.name == 'models.common.DetectionModel'
    assert record.attributes['names'] == ['class 0', 'class 1', 'class 2']
    found, wanted = module_weights(record), model.state_dict()
    assert list(found) == list(wanted)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert {value.dtype for value in found.values()} == {torch.float16, torch.int64}


def test_plain_content_is_that_of_torch(tmp_path: Path) -> None:
    table = torch.arange(12.0).view(3, 4)
    content = {
        'views': [table[1:, ::2], table.T],
        'types': [torch.ones(2, dtype=kind) for kind in (torch.bfloat16, torch.bool, torch.int8)],
        'empty': torch.zeros(0, 3),
        'size': torch.Size([2, 3]),
        'set': {1, 2},
        'ordered': OrderedDict(b=1, a=(2, nn.Parameter(torch.ones(1)))),
    }
    torch.save(content, tmp_path / 'b.pt')
    found = read_recorded(tmp_path / 'b.pt')
    for own, wanted in zip(
        [*found['views'], *found['types'], found['empty']],
        [*content['views'], *content['types'], content['empty']],
        strict=True,
    ):
        assert own.dtype == wanted.dtype and torch.equal(own, wanted)
    assert found['size'] == (2, 3) and found['set'] == {1, 2}
    assert list(found['ordered']) == ['b', 'a'] and found['ordered']['a'][1].item() == 1


class Calls:
    """Object whose pickle calls a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def test_no_function_of_a_file_is_called(tmp_path: Path) -> None:
    touched = tmp_path / 'touched'
    calls = [
        Calls(Path.touch, touched),
        Calls(eval, f'open({str(touched)!r}, "w")'),
        Calls(getattr, Path, 'touch'),
        Calls(__import__, 'os'),
    ]
    path = archive(tmp_path / 'c.pt', pickle.dumps(calls, 2))
    found = read_recorded(path)
    assert not touched.exists()
    assert all(isinstance(each, Recorded) for each in found)
    assert [each.name for each in found][1:] == [
        '__builtin__.eval',
        '__builtin__.getattr',
        '__builtin__.__import__',
    ]


def test_what_a_record_holds_is_kept(tmp_path: Path) -> None:
    class Table(dict[str, int]):
        pass

    Table.__qualname__, Table.__module__ = 'Table', 'models.common'
    made = Table(a=1)
    made.kind = 'x'  # type: ignore[attr-defined]
    buffer = io.BytesIO()

    class Pickler(pickle._Pickler):  # type: ignore[name-defined]
        def save_global(self, obj: Any, name: str | None = None) -> None:
            if obj is Table:
                self.write(b'cmodels.common\nTable\n')
                return
            super().save_global(obj, name)

    Pickler(buffer, 2).dump(made)
    record = read_recorded(archive(tmp_path / 'd.pt', buffer.getvalue()))
    assert record.items == [('a', 1)] and record.attributes == {'kind': 'x'}


#: GLOBAL of torch's function that builds tensors, and a storage of two floats.
TENSOR = b'ctorch._utils\n_rebuild_tensor_v2\n'
STORAGE = b'(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x02tQ'


@pytest.mark.parametrize(
    ('pickled', 'message'),
    [
        (b'\x80\x02' + TENSOR + b'(' + STORAGE + b'K\0(K\x03t(K\x01tI00\nNtR.', 'numbers has'),
        (b'\x80\x02' + TENSOR + b'(' + STORAGE + b'K\1(K\x02t(K\x01tI00\nNtR.', 'out of bounds'),
        (b'\x80\x02' + TENSOR + b'}(X\x04\0\0\0nameK\1ub.', 'a state is set'),
        (b'\x80\x02' + STORAGE + b'}b.', 'a state is set'),
        (b'\x80\x02' + STORAGE.replace(b'K\x02', b'K\x03') + b'.', 'has 8 bytes, not 12'),
        (b'\x80\x02X\x05\0\0\0thingQ.', 'cannot be read'),
        (b'\x80\x02}', 'cannot be read'),
    ],
)
def test_damaged_pickles_are_refused(pickled: bytes, message: str, tmp_path: Path) -> None:
    path = archive(tmp_path / 'e.pt', pickled, _0=b'\0' * 8)
    with pytest.raises(ConversionError, match=message):
        read_recorded(path)


def test_files_that_are_no_archive_are_named(tmp_path: Path) -> None:
    cut = tmp_path / 'cut.pt'
    torch.save({'a': torch.ones(9)}, cut)
    cut.write_bytes(cut.read_bytes()[:300])
    (tmp_path / 'text.pt').write_text('no archive')
    for path in (cut, tmp_path / 'text.pt'):
        with pytest.raises(ConversionError, match=f'{path.name} is no archive of torch.save'):
            read_recorded(path)
    with pytest.raises(FileNotFoundError, match='there is no file'):
        read_recorded(tmp_path / 'none.pt')
    script = archive(tmp_path / 'script.pt', b'}.')
    with zipfile.ZipFile(script, 'a') as file:
        file.writestr('archive/constants.pkl', b'}.')
    with pytest.raises(ConversionError, match='is a TorchScript archive'):
        read_recorded(script)
    compressed = tmp_path / 'small.pt'
    with zipfile.ZipFile(compressed, 'w', zipfile.ZIP_DEFLATED) as file:
        file.writestr('archive/data.pkl', b'\x80\x02' + STORAGE + b'.')
        file.writestr('archive/data/0', b'\0' * 8)
    with pytest.raises(ConversionError, match='or is compressed'):
        read_recorded(compressed)


def test_an_object_that_is_no_network_has_no_weights(tmp_path: Path) -> None:
    path = archive(tmp_path / 'f.pt', pickle.dumps(Calls(eval, '1'), 2))
    with pytest.raises(ConversionError, match='an object of __builtin__.eval is no module'):
        module_weights(read_recorded(path))
