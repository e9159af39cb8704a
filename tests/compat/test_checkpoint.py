"""Tests of loading: stock checkpoints load with weights_only=True, by a minimal list of names."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.optim import OneCycleParamScheduler
from mmengine.runner import CheckpointLoader

from mmdet_ext.compat.checkpoint import checkpoint_classes, load_from_local
from mmdet_ext.utils.families import installed_family
from tests._helpers.processes import run_python
from tests._helpers.same import assert_same
from tests.compat.checkpoint_files import every_dtype, needs_torch_2_6, write_pickle

pytestmark = needs_torch_2_6


def test_a_stock_checkpoint_is_loaded_unchanged(stock_file: Path) -> None:
    loaded = CheckpointLoader.load_checkpoint(str(stock_file), map_location='cpu')
    # This test wrote the file, so an unprotected load is safe and gives the reference.
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


def test_loaded_buffers_can_be_used_further(stock_file: Path) -> None:
    """Append to a loaded array and save it again, as resuming does."""
    loaded = load_from_local(str(stock_file), 'cpu')
    buffer = loaded['message_hub']['log_scalars']['train/loss']
    before = buffer.data[0].tolist()
    buffer.update(7.0)
    assert buffer.data[0].tolist() == [*before, 7.0] and buffer.current() == 7.0
    assert buffer.mean(1) == 7.0
    again = stock_file.with_name('again.pth')
    torch.save(loaded, again)
    assert_same(load_from_local(str(again), 'cpu'), loaded)


ALONE = """
import json, sys
from mmengine.runner import CheckpointLoader
found = []
for path in sys.argv[1:]:
    try:
        found.append(list(CheckpointLoader.load_checkpoint(path, map_location='cpu')))
    except Exception as error:
        found.append([type(error).__name__, 'HistoryBuffer' in str(error), 'Path' in str(error)])
print(json.dumps([found, 'mmdet_ext' in sys.modules]))
"""


@pytest.mark.subprocess
def test_mmengine_alone_refuses_its_own_checkpoint_and_its_fork_loads_any(
    stock_file: Path, tmp_path: Path
) -> None:
    """Show the problem that is solved: neither loads its own file and refuses all else."""
    torch.save({'meta': Path('a')}, tmp_path / 'other.pth')
    printed = run_python('-c', ALONE, stock_file, tmp_path / 'other.pth', cwd=tmp_path)
    (own, other), imported = json.loads(printed.splitlines()[-1])
    if installed_family() == 'onedl':
        assert {'state_dict', 'message_hub'} <= set(own) and other == ['meta']
        assert 'Falling back to weights_only=False' in printed
    else:
        assert own == ['UnpicklingError', True, False]
        assert other == ['UnpicklingError', False, True]
    assert not imported


@pytest.mark.parametrize('name', ['numpy.core.multiarray', 'numpy._core.multiarray'])
def test_both_names_of_numpy_core_are_admitted(name: str, tmp_path: Path) -> None:
    content = {'scalar': np.float32(1.5), 'array': np.array([1, 2])}

    def rename(data: bytes) -> bytes:
        renamed, count = re.subn(rb'numpy\._?core\.multiarray', name.encode(), data)
        assert count > 1
        return renamed

    path = write_pickle(tmp_path / 'old.pth', rename, content)
    assert_same(load_from_local(str(path), 'cpu'), content)


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
def test_every_entry_of_the_list_is_needed(index: int, stock_file: Path, tmp_path: Path) -> None:
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


def test_one_cycle_schedules_and_nested_meta_information_are_loaded(tmp_path: Path) -> None:
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


def test_a_file_can_name_these_alone() -> None:
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


@pytest.mark.parametrize('share', [0.1, 0.5, 0.99])
def test_a_cut_file_is_named(share: float, stock_file: Path, tmp_path: Path) -> None:
    data = stock_file.read_bytes()
    path = tmp_path / 'cut.pth'
    path.write_bytes(data[: math.floor(share * len(data))])
    with pytest.raises(RuntimeError, match=r"cut\.pth' cannot be loaded .* Is the file whole"):
        load_from_local(str(path), 'cpu')


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({'a': torch.ones(2)}, tmp_path / 'home.pth')
    monkeypatch.setenv('HOME', str(tmp_path))
    assert load_from_local('~/home.pth', 'cpu')['a'].tolist() == [1, 1]
