"""Checkpoints of stock MMEngine load with weights_only=True, and nothing else does."""

from __future__ import annotations

import datetime
import math
import os
import re
import subprocess
import sys
import types
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.dataset import default_collate
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.optim import OneCycleParamScheduler
from mmengine.runner import CheckpointLoader, Runner
from torch.utils.data import DataLoader

import mmdet_ext
from mmdet_ext.compat.checkpoint import checkpoint_classes, install_safe_loading, load_from_local
from tests._helpers.same import assert_same

PACKAGE = Path(mmdet_ext.__file__).parent

needs_torch_2_6 = pytest.mark.skipif(
    tuple(map(int, torch.__version__.split('.')[:2])) < (2, 6),
    reason='torch before 2.6 loads everything by default: nothing is installed there',
)
pytestmark = needs_torch_2_6


@pytest.fixture(autouse=True)
def installed() -> None:
    install_safe_loading()


class Toy(BaseModel):
    """One weight; its loss is a picture's mean times it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([2.0, 3.0]))

    def forward(self, inputs: Any, mode: str = 'tensor') -> Any:
        loss = (torch.as_tensor(inputs).float().mean() * self.weight).square().sum()
        return {'loss': loss} if mode == 'loss' else [loss]


class NumpyMetric(BaseMetric):
    """A metric in numpy scalars, as evaluations compute it."""

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results.append(1.0)

    def compute_metrics(self, results: list[Any]) -> dict[str, Any]:
        return {'score': np.float64(0.25), 'hits': np.int64(3)}


class EveryDtype(Hook):
    """Leaves scalars and arrays of all numeric types in the message hub."""

    def before_train(self, runner: Runner) -> None:
        for dtype in every_dtype():
            runner.message_hub.update_info(f'scalar_{dtype}', dtype.type(1))
            runner.message_hub.update_info(f'array_{dtype}', np.arange(2).astype(dtype))


def every_dtype() -> list[np.dtype[Any]]:
    codes = np.typecodes['AllInteger'] + np.typecodes['Float'] + '?'
    return sorted({np.dtype(np.dtype(code).str) for code in codes}, key=str)


@pytest.fixture(scope='module')
def stock_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that stock's runner wrote after an epoch of training and a validation."""
    work_dir = tmp_path_factory.mktemp('stock')

    def loader() -> DataLoader[Any]:
        return DataLoader(
            [{'inputs': float(i)} for i in range(1, 5)], batch_size=2, collate_fn=default_collate
        )

    runner = Runner(
        model=Toy(),
        work_dir=str(work_dir),
        train_dataloader=loader(),
        val_dataloader=loader(),
        train_cfg=dict(by_epoch=True, max_epochs=2, val_interval=1),
        val_cfg=dict(),
        val_evaluator=Evaluator(NumpyMetric()),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.1)),
        param_scheduler=dict(type='LinearLR', start_factor=0.5, end=2),
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook', save_best='score', rule='greater')
        ),
        custom_hooks=[EveryDtype()],
        log_level='WARNING',
        experiment_name=work_dir.name,
    )
    runner.train()
    return work_dir / 'epoch_2.pth'


def write_pickle(path: Path, edit: Callable[[bytes], bytes], content: Any = None) -> Path:
    """Save content as torch does, with its pickle edited."""
    torch.save(content, path)
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, 'w') as archive:
        for name, data in members.items():
            archive.writestr(name, edit(data) if name.endswith('/data.pkl') else data)
    return path


class Call:
    """Pickles as the call of a function, with a state to set afterwards where given."""

    def __init__(self, function: Any, *args: Any, state: Any = None) -> None:
        self.reduced = (function, args) if state is None else (function, args, state)

    def __reduce__(self) -> Any:
        return self.reduced


def test_stock_checkpoint_loads_whole(stock_file: Path) -> None:
    loaded = CheckpointLoader.load_checkpoint(str(stock_file), map_location='cpu')
    # The file was written by this very test: reading it without a net gives the reference.
    assert_same(loaded, torch.load(stock_file, weights_only=False))
    hub = loaded['message_hub']
    losses, counts = hub['log_scalars']['train/loss'].data
    assert losses.shape == (4,) and counts.tolist() == [1, 1, 1, 1]
    assert losses[0] == (2 * 1.5) ** 2 + (3 * 1.5) ** 2
    assert hub['runtime_info']['best_score'] == 0.25
    for dtype in every_dtype():
        scalar, array = (hub['runtime_info'][f'{kind}_{dtype}'] for kind in ('scalar', 'array'))
        assert scalar.dtype == array.dtype == dtype and scalar == 1 and array.tolist() == [0, 1]
    assert loaded['optimizer']['state'][0]['exp_avg'].abs().min() > 0


def test_loaded_buffers_go_on(stock_file: Path) -> None:
    """A loaded array can be appended to and saved again, as resuming does."""
    loaded = load_from_local(str(stock_file), 'cpu')
    buffer = loaded['message_hub']['log_scalars']['train/loss']
    before = buffer.data[0].tolist()
    buffer.update(7.0)
    assert buffer.data[0].tolist() == [*before, 7.0] and buffer.current() == 7.0
    assert buffer.mean(1) == 7.0
    again = stock_file.with_name('again.pth')
    torch.save(loaded, again)
    assert_same(load_from_local(str(again), 'cpu'), loaded)


@pytest.mark.subprocess
def test_stock_alone_refuses_its_own_checkpoint(stock_file: Path) -> None:
    """What is mended here: without this package MMEngine cannot read what it wrote."""
    script = (
        'import pickle, sys\n'
        'from mmengine.runner import CheckpointLoader\n'
        'try:\n'
        '    CheckpointLoader.load_checkpoint(sys.argv[1], map_location="cpu")\n'
        'except pickle.UnpicklingError as error:\n'
        '    print("refused", "HistoryBuffer" in str(error), "mmdet_ext" in sys.modules)\n'
    )
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', script, str(stock_file)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.splitlines()[-1:] == ['refused True False'], done.stderr


@pytest.mark.parametrize('name', ['numpy.core.multiarray', 'numpy._core.multiarray'])
def test_both_of_numpys_names_are_admitted(name: str, tmp_path: Path) -> None:
    content = {'scalar': np.float32(1.5), 'array': np.array([1, 2])}

    def rename(data: bytes) -> bytes:
        renamed, count = re.subn(rb'numpy\._?core\.multiarray', name.encode(), data)
        assert count > 1
        return renamed

    path = write_pickle(tmp_path / 'old.pth', rename, content)
    assert_same(load_from_local(str(path), 'cpu'), content)


def test_code_is_refused_and_not_run(tmp_path: Path) -> None:
    marker = tmp_path / 'ran'
    torch.save({'state_dict': Call(os.system, f'touch {marker}')}, tmp_path / 'evil.pth')
    with pytest.raises(RuntimeError, match=rf"evil\.pth' was refused: it holds '{os.name}.system'"):
        CheckpointLoader.load_checkpoint(str(tmp_path / 'evil.pth'))
    assert not marker.exists()
    # The trap works: a load without the net springs it.
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
def test_anything_else_is_refused_by_name(content: Any, named: str, tmp_path: Path) -> None:
    path = tmp_path / 'other.pth'
    torch.save({'state_dict': {'a': torch.ones(1)}, 'meta': content}, path)
    with pytest.raises(RuntimeError, match='was refused: it holds') as caught:
        load_from_local(str(path), 'cpu')
    message = str(caught.value)
    assert str(path) in message and 'could run code' in message
    assert named in message.partition('it holds')[2].partition(', and loading')[0]


def test_a_refused_call_names_what_it_called(tmp_path: Path) -> None:
    """A statistics method may be named by a checkpoint, but not called."""
    call = Call(HistoryBuffer.mean, HistoryBuffer([1.0], [1]))
    torch.save(call, tmp_path / 'call.pth')
    with pytest.raises(RuntimeError, match=r'cannot be loaded .*HistoryBuffer\.mean'):
        load_from_local(str(tmp_path / 'call.pth'), 'cpu')


def test_a_dtype_is_not_rewritten_by_a_file(tmp_path: Path) -> None:
    """numpy takes any layout for a copy of a dtype, one that reads beyond the array too."""
    layout = (3, '<', None, ('far',), {'far': (np.dtype('f8'), 1000)}, 8, 8, 0)
    torch.save(Call(np.dtype, 'f8', False, True, state=layout), tmp_path / 'layout.pth')
    loaded = load_from_local(str(tmp_path / 'layout.pth'), 'cpu')
    assert loaded is np.dtype('f8') and loaded.names is None and loaded.itemsize == 8


def test_an_array_state_that_lies_is_an_error(tmp_path: Path) -> None:
    reconstruct = np.zeros(0).__reduce__()[0]
    state = (1, (1_000_000,), np.dtype('f8'), False, b'A' * 16)
    call = Call(reconstruct, np.ndarray, (0,), b'b', state=state)
    torch.save(call, tmp_path / 'lie.pth')
    with pytest.raises(RuntimeError, match='cannot be loaded .*buffer size'):
        load_from_local(str(tmp_path / 'lie.pth'), 'cpu')


@pytest.mark.parametrize('rest', [None, datetime.datetime(2024, 1, 1)], ids=['loaded', 'refused'])
def test_a_file_does_not_change_the_statistics(rest: Any, tmp_path: Path) -> None:
    """Stock's HistoryBuffer writes the methods that a pickle names into its class."""
    call = Call(HistoryBuffer, state={'statistics_methods': {'mean': HistoryBuffer.max, 'x': 1}})
    torch.save([call, rest], tmp_path / 'poison.pth')
    if rest is None:
        load_from_local(str(tmp_path / 'poison.pth'), 'cpu')
    else:
        with pytest.raises(RuntimeError, match=r"holds 'datetime\.datetime'"):
            load_from_local(str(tmp_path / 'poison.pth'), 'cpu')
    assert set(HistoryBuffer._statistics_methods) == {'min', 'max', 'current', 'mean'}
    assert HistoryBuffer([1.0, 4.0], [1, 1]).statistics('mean') == 2.5


NAMES = [
    entry[1] if isinstance(entry, tuple) else f'{entry.__module__}.{entry.__qualname__}'
    for entry in checkpoint_classes()
]


@pytest.fixture
def clean_list() -> Iterator[None]:
    before = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    yield
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(before)


@pytest.mark.usefixtures('clean_list')
@pytest.mark.parametrize('index', range(len(NAMES)), ids=NAMES)
def test_nothing_on_the_list_can_be_spared(index: int, stock_file: Path, tmp_path: Path) -> None:
    def other_name(data: bytes) -> bytes:
        new, old = b'numpy._core.multiarray', b'numpy.core.multiarray'
        return data.replace(new, old) if new in data else data.replace(old, new)

    content = [np.float64(1), np.zeros(1), ConfigDict(a=1), OneCycleParamScheduler._annealing_cos]
    other = write_pickle(tmp_path / 'numpy.pth', other_name, content)
    entries = checkpoint_classes()
    torch.serialization.add_safe_globals(entries)
    for path in (stock_file, other):
        load_from_local(str(path), 'cpu')

    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(entries[:index] + entries[index + 1 :])
    failed = 0
    for path in (stock_file, other):
        try:
            load_from_local(str(path), 'cpu')
        except RuntimeError:
            failed += 1
    assert failed > 0


def test_one_cycle_schedules_and_nested_meta_information_come_back(tmp_path: Path) -> None:
    meta = ConfigDict(classes=('a',), skeleton=dict(links=[(0, 1)]))
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    states = {}
    for strategy in ('cos', 'linear'):
        schedule = OneCycleParamScheduler(
            optimizer, 'lr', eta_max=1.0, total_steps=9, anneal_strategy=strategy
        )
        states[strategy] = schedule.state_dict()
    torch.save({'param_schedulers': states, 'dataset_meta': meta}, tmp_path / 'one.pth')
    loaded = load_from_local(str(tmp_path / 'one.pth'), 'cpu')
    assert loaded['dataset_meta'] == {'classes': ('a',), 'skeleton': {'links': [(0, 1)]}}
    for strategy, state in states.items():
        assert loaded['param_schedulers'][strategy] == state
        assert loaded['param_schedulers'][strategy]['anneal_func'] is state['anneal_func']


def test_only_these_names_can_be_named() -> None:
    cores = ('numpy._core.multiarray', 'numpy.core.multiarray')
    assert {name for name in NAMES if '.' in name} == {
        'mmengine.logging.history_buffer.HistoryBuffer',
        'builtins.getattr',
        'numpy.dtype',
        'mmengine.optim.scheduler.param_scheduler.OneCycleParamScheduler',
        'mmengine.config.config.ConfigDict',
        'numpy.ndarray',
        *(f'{core}.scalar' for core in cores),
        *(f'{core}._reconstruct' for core in cores),
    }
    values = [entry[0] if isinstance(entry, tuple) else entry for entry in checkpoint_classes()]
    assert getattr not in values and eval not in values and np.dtype not in values


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
    'picture': b'\x89PNG\r\n\x1a\n',
    'noise': bytes(range(200, 256)),
}


@pytest.mark.parametrize('content', FOREIGN.values(), ids=FOREIGN)
def test_other_files_say_so(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / 'file.pth'
    path.write_bytes(content)
    with pytest.raises(RuntimeError, match=r"file\.pth' cannot be loaded .* Is the file whole"):
        load_from_local(str(path), 'cpu')


@pytest.mark.parametrize('share', [0.1, 0.5, 0.99])
def test_a_cut_file_says_so(share: float, stock_file: Path, tmp_path: Path) -> None:
    data = stock_file.read_bytes()
    path = tmp_path / 'cut.pth'
    path.write_bytes(data[: math.floor(share * len(data))])
    with pytest.raises(RuntimeError, match=r"cut\.pth' cannot be loaded .* Is the file whole"):
        load_from_local(str(path), 'cpu')


def test_an_absent_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r'none\.pth'):
        CheckpointLoader.load_checkpoint(str(tmp_path / 'none.pth'))


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({'a': torch.ones(2)}, tmp_path / 'home.pth')
    monkeypatch.setenv('HOME', str(tmp_path))
    assert load_from_local('~/home.pth', 'cpu')['a'].tolist() == [1, 1]


def test_torchs_own_load_is_as_safe_as_before(tmp_path: Path) -> None:
    assert torch.load.__module__ == 'torch.serialization'
    torch.save(Call(os.system, 'true'), tmp_path / 'evil.pth')
    with pytest.raises(Exception, match='system'):
        torch.load(tmp_path / 'evil.pth')
    assert not [name for name in os.environ if name.startswith('TORCH_FORCE')]


def test_the_safety_is_switched_off_nowhere() -> None:
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
