"""One, two and four processes that share the classes train alike, and end together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests._helpers.configs import CONFIGS
from tests.face.sharding.scenarios import SCENARIOS, TRAININGS

pytestmark = [pytest.mark.subprocess, pytest.mark.slow]

REPO = CONFIGS.parent


@pytest.fixture(scope='module')
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of what the processes of all scenarios wrote."""
    folder: Path = tmp_path_factory.mktemp('fleet')
    subprocess.run(
        [sys.executable, '-W', 'ignore', '-m', 'tests.face.sharding.fleet', str(folder)],
        cwd=REPO,
        env={
            **os.environ,
            'PYTHONPATH': str(REPO),
            'OMP_NUM_THREADS': '1',
            'CUDA_VISIBLE_DEVICES': '',
        },
        check=True,
        timeout=600,
    )
    return folder


def results(folder: Path, scenario: str, processes: int) -> list[Any]:
    """Return what the processes of a scenario returned, by rank."""
    found = []
    for rank in range(processes):
        path = folder / f'{scenario}_{processes}_{rank}.json'
        assert path.exists(), path.with_suffix('.log').read_text()[-4000:]
        found.append(json.loads(path.read_text()))
    return found


def near(found: Any, expected: Any, tolerance: float) -> None:
    """Assert that numbers in nested lists and dicts differ by a share of the largest of a list."""
    assert type(found) is type(expected)
    if isinstance(found, dict):
        assert found.keys() == expected.keys()
        for key, value in found.items():
            near(value, expected[key], tolerance)
        return
    one, other = (torch.tensor(part, dtype=torch.float64) for part in (found, expected))
    assert one.shape == other.shape
    if one.numel():
        assert (one - other).abs().max() <= tolerance * max(1, float(other.abs().max()))


def test_every_process_ended_as_its_scenario_says(fleet: Path) -> None:
    statuses = json.loads((fleet / 'statuses.json').read_text())
    assert statuses.pop('ended_3') == {'0': 1, '1': 7, '2': 1}
    assert len(statuses) == len(SCENARIOS) - 1
    assert all(not any(status.values()) for status in statuses.values()), statuses


@pytest.mark.parametrize('processes', [2, 4])
@pytest.mark.parametrize('name', TRAININGS)
def test_several_processes_train_as_one(fleet: Path, name: str, processes: int) -> None:
    double = TRAININGS[name].dtype == torch.float64
    tolerance = 1e-12 if double else 1e-5
    (alone,) = (part[name] for part in results(fleet, 'trained', 1))
    shared = [part[name] for part in results(fleet, 'trained', processes)]
    losses = torch.tensor([step['loss'] for step in alone['logs']], dtype=torch.float64)
    assert len(losses) == TRAININGS[name].steps and losses.isfinite().all()
    for part in shared:
        assert part['logs'] == shared[0]['logs'] and part['norms'] == shared[0]['norms']
        found = torch.tensor([step['loss'] for step in part['logs']], dtype=torch.float64)
        assert (found - losses).abs().max() <= (1e-12 if double else 1e-5)
        for step, expected in zip(part['logs'], alone['logs'], strict=True):
            near(step, expected, tolerance)
        for key in ('norms', 'centers', 'state', 'replicated'):
            near(part[key], alone[key], tolerance)


def test_trainings_are_not_trivial(fleet: Path) -> None:
    (alone,) = results(fleet, 'trained', 1)
    losses = {name: [step['loss'] for step in part['logs']] for name, part in alone.items()}
    fell = {name for name, values in losses.items() if values[-1] < 0.8 * values[0]}
    assert {'arcface', 'adaface', 'curricularface', 'uniface', 'filter'} <= fell
    assert losses['arcface'] != losses['arcface sampled']
    assert alone['arcface']['norms'][0] > TRAININGS['arcface'].clip['max_norm']  # type: ignore[index]
    assert any(step['filtered'] > 0 for step in alone['filter']['logs'])
    assert alone['many classes']['logs'][0]['loss'] > 20
    (fourth,) = {len(part['three classes']['centers']) for part in results(fleet, 'trained', 4)}
    assert fourth == 3


def test_the_others_end_with_the_reason_when_a_process_ends(fleet: Path) -> None:
    for rank in (0, 2):
        found = json.loads((fleet / f'ended_3_{rank}.json').read_text())
        assert found['step'] == 2 and found['seconds'] < 60
        for part in ('another process of this training ended', 'first error in the log', 'resume'):
            assert part in found['message']
        assert found['cause'] != 'None'
    assert not (fleet / 'ended_3_1.json').exists()


def test_an_overflow_in_one_shard_skips_the_step_everywhere(fleet: Path) -> None:
    (alone,), shared = results(fleet, 'overflowed', 1), results(fleet, 'overflowed', 2)
    assert shared[0] == shared[1]
    for step, (found, expected) in enumerate(zip(shared[0], alone, strict=True)):
        assert all(expected['moved']) and found['moved'] == [step != 2] * len(expected['moved'])
        assert found['scale'] == (8.0 if step < 2 else 4.0)
    # Up to the step, two processes in bfloat16 train as one.
    near([s['loss'] for s in shared[0][:3]], [s['loss'] for s in alone[:3]], 1e-3)


@pytest.mark.parametrize(
    'part, message',
    [
        ('stock wrapper', r"model_wrapper_cfg=dict\(type='mmdet_ext.ShardedHeadDDP'\)"),
        ('state', 'centres of 5 of 10 classes: .*mmdet_ext.ShardedCheckpointHook'),
        ('scores', 'has the scores of its own classes alone'),
        ('sampled', 'trains in one process, got 2: .*mmdet_ext.ShardedMarginHead'),
    ],
)
def test_several_processes_refuse_what_would_lose_shards(
    fleet: Path, part: str, message: str
) -> None:
    for found in results(fleet, 'refused', 2):
        with pytest.raises(RuntimeError, match=message):
            raise RuntimeError(found[part].replace('\n', ' '))


def test_each_process_loads_its_rows_of_a_whole_table(fleet: Path) -> None:
    for rank, found in enumerate(results(fleet, 'refused', 2)):
        assert found['loaded'] == found['table'][5 * rank : 5 * rank + 5]


@pytest.mark.parametrize('name, tolerance', [('accumulated', 1e-5), ('mixed', 1e-2)])
def test_the_stock_runner_trains_shards_from_a_config(
    fleet: Path, name: str, tolerance: float
) -> None:
    (alone,), shared = results(fleet, 'ran', 1), results(fleet, 'ran', 2)
    for part in shared:
        found, expected = dict(part[name]), dict(alone[name])
        assert found == shared[0][name]
        assert found.pop('wrapper') == expected.pop('wrapper') == 'ShardedHeadDDP'
        assert len(found['losses']) == 6
        assert len(found['norms']) == (3 if name == 'accumulated' else 6)
        near(found, expected, tolerance)
