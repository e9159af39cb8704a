"""`ShardedCheckpointHook` in runs of MMEngine's runner, in one process and in several."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import mmdet_ext.face.sharding.checkpoint_tables as checkpoint_tables
from mmdet_ext.registry import HOOKS
from tests._helpers.processes import run_python
from tests.face.sharding.checkpoint_runs import EPOCHS, StopAt, make_runner, values_of

WORKER = Path(__file__).with_name('checkpoint_runs.py')

pytestmark = pytest.mark.slow


def names(work_dir: Path) -> list[str]:
    return sorted(path.name for path in (work_dir / 'sharded').iterdir())


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, msg=lambda m, n=name: f'{n}: {m}')


@pytest.fixture(scope='module')
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Tensor]]:
    work_dir = tmp_path_factory.mktemp('whole')
    runner = make_runner(work_dir)
    runner.train()
    return work_dir, values_of(runner)


@pytest.mark.subprocess
def test_runs_on_other_numbers_of_processes_resume(tmp_path: Path) -> None:
    run_python(WORKER, tmp_path, cwd=tmp_path)
    results = torch.load(tmp_path / 'results.pt')
    for kind in ('SGD', 'AdamW'):
        expected = results[f'{kind}/whole']
        assert expected['numbers'].tolist() == [4, 8, 8] and 'head.ema' in expected
        for resumed in ('two', 'one'):
            assert_same(results[f'{kind}/{resumed}'], expected)
    assert_same(results['stopped'], results['SGD/whole'])
    assert results['stopped_names'] == [f'epoch_{number}' for number in (1, 2, 3, 4)]


def test_every_epoch_is_saved(whole: tuple[Path, Any]) -> None:
    assert names(whole[0]) == [f'epoch_{number + 1}' for number in range(EPOCHS)]


@pytest.mark.parametrize('background', [False, True])
@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        (dict(interval=3), ['epoch_3', 'epoch_4']),
        (dict(interval=3, save_last=False), ['epoch_3']),
        (dict(interval=-1), ['epoch_4']),
        (dict(max_keep_ckpts=2), ['epoch_3', 'epoch_4']),
        (dict(interval=5, by_epoch=False), ['iter_5', 'iter_8']),
    ],
    ids=['interval', 'save_last', 'last alone', 'max_keep_ckpts', 'steps'],
)
def test_options_decide_what_is_saved(
    options: dict[str, Any], expected: list[str], background: bool, tmp_path: Path
) -> None:
    make_runner(tmp_path, hook=dict(options, async_save=background)).train()
    assert names(tmp_path) == expected


def test_out_dir_gets_the_name_of_the_run(tmp_path: Path) -> None:
    hook = dict(interval=-1, out_dir=str(tmp_path / 'disk'))
    make_runner(tmp_path / 'run', hook=hook).train()
    assert names(tmp_path / 'disk' / 'run') == ['epoch_4']


def test_a_stopped_run_resumes_from_its_latest(
    whole: tuple[Path, dict[str, Tensor]], tmp_path: Path
) -> None:
    runner = make_runner(tmp_path)
    runner.register_hook(StopAt(5))
    with pytest.raises(InterruptedError):
        runner.train()
    assert names(tmp_path) == ['epoch_1', 'epoch_2']
    resumed = make_runner(tmp_path, resume=True)
    resumed.train()
    assert_same(values_of(resumed), whole[1])


def test_a_run_resumes_past_a_damaged_checkpoint(
    whole: tuple[Path, dict[str, Tensor]], tmp_path: Path
) -> None:
    for name in ('epoch_2', 'epoch_3'):
        shutil.copytree(whole[0] / 'sharded' / name, tmp_path / 'sharded' / name)
    (tmp_path / 'sharded' / 'epoch_3' / 'replicated.pth').write_bytes(b'cut')
    runner = make_runner(tmp_path, resume=True)
    runner.train()
    assert_same(values_of(runner), whole[1])
    assert names(tmp_path) == ['epoch_2', 'epoch_3', 'epoch_3.damaged', 'epoch_4']


def test_a_loop_of_steps_resumes_in_the_middle(tmp_path: Path) -> None:
    found = []
    for stop in (None, 5):
        options: dict[str, Any] = dict(
            train_cfg=dict(type='IterBasedTrainLoop', max_iters=8),
            hook=dict(interval=3, by_epoch=False),
            steps=8,
        )
        runner = make_runner(tmp_path / str(stop), **options)
        if stop is not None:
            runner.register_hook(StopAt(stop))
            with pytest.raises(InterruptedError):
                runner.train()
            assert names(tmp_path / str(stop)) == ['iter_3']
            runner = make_runner(tmp_path / str(stop), resume=True, **options)
        runner.train()
        found.append(values_of(runner))
    assert_same(*found)


def test_resume_without_a_checkpoint_trains_anew(
    whole: tuple[Path, dict[str, Tensor]], tmp_path: Path
) -> None:
    runner = make_runner(tmp_path, resume=True)
    runner.train()
    assert_same(values_of(runner), whole[1])


def test_load_from_alone_loads_the_weights(whole: tuple[Path, Any], tmp_path: Path) -> None:
    folder = whole[0] / 'sharded' / 'epoch_4'
    runner = make_runner(tmp_path, kind='AdamW', load_from=str(folder))
    runner.register_hook(StopAt(0))
    with pytest.raises(InterruptedError):
        runner.train()
    assert torch.equal(runner.model.head.weight, whole[1]['head.weight'])
    assert runner.iter == 0 and not runner.optim_wrapper.optimizer.state


def test_a_test_loads_the_weights(whole: tuple[Path, Any], tmp_path: Path) -> None:
    folder = whole[0] / 'sharded' / 'epoch_4'
    runner = make_runner(tmp_path, only_test=True, load_from=str(folder))
    assert runner.test() == {'count': 2.0}
    assert torch.equal(runner.model.head.weight, whole[1]['head.weight'])


def test_a_new_run_beside_later_checkpoints_is_refused(
    whole: tuple[Path, Any], tmp_path: Path
) -> None:
    shutil.copytree(whole[0] / 'sharded' / 'epoch_2', tmp_path / 'sharded' / 'epoch_2')
    with pytest.raises(ValueError, match='begins at step 0, and .* later checkpoints .* epoch_2'):
        make_runner(tmp_path).train()


def test_other_schedules_are_refused(whole: tuple[Path, Any], tmp_path: Path) -> None:
    folder = str(whole[0] / 'sharded' / 'epoch_2')
    more = dict(resume=True, load_from=folder, param_scheduler=[])
    with pytest.raises(ValueError, match='numbers .* of param_scheduler'):
        make_runner(tmp_path, **more).train()


def test_an_error_in_the_background_ends_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(*args: Any) -> None:
        raise OSError('no space left')

    monkeypatch.setattr(checkpoint_tables, 'write_tables', no_space)
    with pytest.raises(RuntimeError, match='could not write epoch_4: no space left'):
        make_runner(tmp_path, hook=dict(interval=4, async_save=True)).train()
    assert names(tmp_path) == ['epoch_4.writing']


@pytest.mark.parametrize('options', [dict(interval=0), dict(max_keep_ckpts=0), dict(interval=-2)])
def test_options_out_of_range_are_refused(options: dict[str, int]) -> None:
    (name,) = options
    with pytest.raises(ValueError, match=name):
        HOOKS.build(dict(type='mmdet_ext.ShardedCheckpointHook', **options))


def test_epochs_of_a_loop_of_steps_are_refused(tmp_path: Path) -> None:
    loop = dict(type='IterBasedTrainLoop', max_iters=2)
    with pytest.raises(ValueError, match='by_epoch=False'):
        make_runner(tmp_path, train_cfg=loop).train()
