"""Commands of a user on faces: `mim train` under both hosts, `mim test`, `--resume`."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

import mmdet_ext.registry  # noqa: F401  makes checkpoints load
from mmdet_ext.compat.checkpoint import load_from_local
from mmdet_ext.data.synthetic.faces import make_faces
from mmdet_ext.utils.mim import mim_name
from tests._helpers.configs import CONFIGS, shrink_face
from tests._helpers.same import assert_same

LEAF = CONFIGS / 'ablations' / 'margins' / 'digits' / 'softmax_digits.py'
REPO = CONFIGS.parent
ENVIRONMENT = {
    **os.environ,
    'PYTHONPATH': str(REPO),
    'OMP_NUM_THREADS': '1',
    'CUDA_VISIBLE_DEVICES': '',
    'PYTHONWARNINGS': 'ignore',
}

# MMEngine sets a CUDA device when it starts a process group, which fails without one. It keeps a
# group that exists.
WORKER = """
import sys
import torch
from mmengine.config import Config
from mmengine.runner import Runner
torch.distributed.init_process_group('gloo')
Runner.from_cfg(Config.fromfile(sys.argv[1])).train()
"""


def small(root: Path, work_dir: Path | None = None, **options: Any) -> Config:
    """Write a leaf config of two epochs, with random shifts, and a margin that keeps a state."""
    cfg = shrink_face(LEAF, root, **{'log_level': 'INFO', **options})
    cfg.train_cfg.max_epochs = 2
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', interval=1)
    cfg.model.head.margin = dict(type='CurricularFace', m=0.3)
    cfg.model.head.aux_losses = [
        dict(type='CenterLoss', num_classes=7, in_channels=2, loss_weight=0.1)
    ]
    cfg.custom_hooks = [
        dict(type='mmdet_ext.MarginScheduleHook', param='m', start=0.1, stop=0.3),
    ]
    if work_dir is not None:
        cfg.work_dir = str(work_dir)
    return cfg


@pytest.fixture(scope='module', autouse=True)
def one_thread() -> Iterator[None]:
    """Use one thread as the other processes do, because sums over threads differ in rounding."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope='module')
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('faces')
    make_faces(folder)
    return folder


@pytest.fixture(scope='module')
def straight(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train without interruption in this process; the folder has the checkpoints of both epochs."""
    work_dir = tmp_path_factory.mktemp('straight')
    Runner.from_cfg(small(root, work_dir, log_level='WARNING')).train()
    return work_dir


def load(path: Path) -> dict[str, Any]:
    return load_from_local(str(path), 'cpu')


def python(*words: str | Path, cwd: Path) -> str:
    """Run Python in a new process, and return its output."""
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        env=ENVIRONMENT,
        cwd=cwd,
        text=True,
        timeout=300,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def assert_same_training(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Assert that weights, statistics, optimiser and schedules are bit-equal."""
    assert one['meta']['epoch'] == other['meta']['epoch']
    assert one['meta']['iter'] == other['meta']['iter'] > 0
    for part in ('state_dict', 'optimizer', 'param_schedulers'):
        assert one[part], part
        assert_same(one[part], other[part], part)


@pytest.fixture(scope='module')
def typed(straight: Path, root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Run the commands of a user, each in its own process and folder, with ``printed.txt``."""
    folder = tmp_path_factory.mktemp('typed')
    config = folder / 'tiny.py'
    small(root).dump(config)
    mmdet = mim_name('mmdet')
    calls: dict[str, tuple[str | Path, ...]] = {
        'mmdet': ('train', mmdet, config),
        'mmpretrain': ('train', mim_name('mmpretrain'), config),
        'resumed': ('train', mmdet, config, '--resume', straight / 'epoch_1.pth'),
        'tested': ('test', mmdet, config, '--checkpoint', straight / 'epoch_2.pth'),
    }

    def call(name: str) -> None:
        (folder / name).mkdir()
        printed = python('-m', 'mim', *calls[name], '--work-dir', folder / name, cwd=folder / name)
        (folder / name / 'printed.txt').write_text(printed)

    # They run at the same time, because most of their time is importing the hosts.
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(call, calls))
    return {name: folder / name for name in calls}


@pytest.mark.subprocess
@pytest.mark.slow
@pytest.mark.parametrize('host', ['mmdet', 'mmpretrain'])
def test_training_by_mim_under_both_hosts_equals_the_runner(
    host: str, typed: dict[str, Path], straight: Path
) -> None:
    printed = (typed[host] / 'printed.txt').read_text()
    assert re.search(r'face/auc: \d\.\d{4}', printed)
    assert re.search(r'Epoch\(train\) +\[2\]\[2/2\].* loss_center: ', printed)
    assert_same_training(load(straight / 'epoch_2.pth'), load(typed[host] / 'epoch_2.pth'))


@pytest.mark.subprocess
@pytest.mark.slow
def test_mim_resumes(typed: dict[str, Path], straight: Path) -> None:
    run = typed['resumed']
    assert not (run / 'epoch_1.pth').exists()
    whole, resumed = load(straight / 'epoch_2.pth'), load(run / 'epoch_2.pth')
    # A checkpoint holds no state of random generators, so the shifts differ. The learned state is
    # kept, and schedules that depend on the epoch continue.
    assert resumed['meta']['epoch'] == 2 and resumed['meta']['iter'] == 4
    for part in ('lr', 'margin_m'):
        logged = [
            checkpoint['message_hub']['log_scalars'][f'train/{part}'].data[0].tolist()
            for checkpoint in (whole, resumed)
        ]
        assert len(logged[0]) == 4 and logged[0] == logged[1], part
    losses = [
        checkpoint['message_hub']['log_scalars']['train/loss'].data[0].tolist()
        for checkpoint in (whole, resumed)
    ]
    assert len(losses[1]) == 4 and losses[1][:2] == losses[0][:2]


@pytest.mark.subprocess
@pytest.mark.slow
def test_mim_test_equals_the_test_of_the_runner(
    typed: dict[str, Path], straight: Path, root: Path, tmp_path: Path
) -> None:
    checkpoint = straight / 'epoch_2.pth'
    tested = (typed['tested'] / 'printed.txt').read_text()
    assert f'Load checkpoint from {checkpoint}' in tested
    runner = Runner.from_cfg(small(root, tmp_path, load_from=str(checkpoint), log_level='WARNING'))
    figures = runner.test()
    assert {'face/auc', 'face/eer'} <= set(figures)
    for name, value in figures.items():
        found = re.search(rf'\b{re.escape(name)}: (\S+)', tested)
        assert found is not None and float(found[1]) == pytest.approx(value, abs=1e-4), name


def without_shifts(cfg: Config) -> Config:
    """Return the config without random transforms."""
    for split in ('train', 'val', 'test'):
        dataset = cfg[f'{split}_dataloader'].dataset
        dataset.pipeline = [step for step in dataset.pipeline if step['type'] != 'RandomCrop']
    return cfg


@pytest.mark.slow
def test_resumed_run_equals_an_uninterrupted_one(root: Path, tmp_path: Path) -> None:
    whole, resumed = tmp_path / 'whole', tmp_path / 'resumed'
    Runner.from_cfg(without_shifts(small(root, whole, log_level='WARNING'))).train()
    first = str(whole / 'epoch_1.pth')
    Runner.from_cfg(
        without_shifts(small(root, resumed, resume=True, load_from=first, log_level='WARNING'))
    ).train()
    assert not (resumed / 'epoch_1.pth').exists()
    assert_same_training(load(whole / 'epoch_2.pth'), load(resumed / 'epoch_2.pth'))
    # The second epoch changed the weights and the state of the margin.
    one, two = (load(whole / f'epoch_{number}.pth')['state_dict'] for number in (1, 2))
    for name in ('head.weight', 'head.margin.pace', 'head.aux_losses.center.centers'):
        assert not torch.equal(one[name], two[name]), name


@pytest.mark.slow
def test_same_seed_same_training_and_another_seed_another(
    straight: Path, root: Path, tmp_path: Path
) -> None:
    found = []
    for seed in (0, 1):
        cfg = small(root, tmp_path / str(seed), log_level='WARNING')
        cfg.randomness.seed = seed
        Runner.from_cfg(cfg).train()
        found.append(load(tmp_path / str(seed) / 'epoch_2.pth'))
    whole = load(straight / 'epoch_2.pth')
    assert_same_training(whole, found[0])
    assert not torch.equal(
        whole['state_dict']['head.weight'], found[1]['state_dict']['head.weight']
    )


@pytest.mark.subprocess
def test_two_gloo_processes_equal_one(root: Path, tmp_path: Path) -> None:
    """Two steps of SGD over the same eight images, in the order of the files.

    Statistics of a batch would differ between one of four and two of two, so batch norms stay in
    evaluation mode. What the margin and the centres remember is the same.
    """
    states = []
    for processes in (1, 2):
        work_dir = tmp_path / str(processes)
        cfg = without_shifts(small(root, work_dir, log_level='WARNING'))
        cfg.model.backbone.norm_eval = True
        cfg.train_dataloader.batch_size = 4 // processes
        cfg.train_dataloader.sampler.shuffle = False
        cfg.train_cfg.max_epochs = 1
        cfg.custom_hooks = []
        # Without batch norms, gradients are large.
        cfg.optim_wrapper = dict(
            type='OptimWrapper', optimizer=dict(type='SGD', lr=0.05), clip_grad=dict(max_norm=1)
        )
        cfg.param_scheduler = []
        cfg.merge_from_dict(dict(val_cfg=None, val_dataloader=None, val_evaluator=None))
        if processes == 1:
            Runner.from_cfg(cfg).train()
        else:
            in_two_processes(cfg, tmp_path)
        states.append(load(work_dir / 'epoch_1.pth')['state_dict'])
    one, two = states
    assert one.keys() == two.keys()
    assert one['head.margin.pace'] != 0 and one['head.aux_losses.center.centers'].any()
    for name, value in one.items():
        torch.testing.assert_close(
            two[name], value, rtol=1e-5, atol=1e-6, msg=lambda text, name=name: f'{name}: {text}'
        )


@pytest.mark.subprocess
def test_two_processes_validate_one_network(root: Path, tmp_path: Path) -> None:
    """Results of two processes together equal those of one process for the checkpoint."""
    cfg = without_shifts(small(root, tmp_path / 'run', log_level='WARNING'))
    cfg.train_dataloader.batch_size = 2
    cfg.train_cfg.max_epochs = 1
    in_two_processes(cfg, tmp_path)
    (scalars,) = (tmp_path / 'run').glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in scalars.read_text().splitlines()]
    (validated,) = [line for line in lines if 'face/auc' in line]
    tested = Runner.from_cfg(
        without_shifts(
            small(
                root,
                tmp_path / 'test',
                load_from=str(tmp_path / 'run' / 'epoch_1.pth'),
                log_level='WARNING',
            )
        )
    ).test()
    assert tested['face/impostor_pairs'] > 100
    # Each process sees every second digit, so two different networks would change the results.
    assert validated == pytest.approx({**validated, **tested}, abs=1e-5)


def in_two_processes(cfg: Config, folder: Path) -> None:
    """Train in two processes on one CPU."""
    # The default of the runner is a CUDA device.
    cfg.model_wrapper_cfg = dict(
        type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False
    )
    cfg.env_cfg.dist_cfg.backend = 'gloo'
    cfg.launcher = 'pytorch'
    cfg.dump(folder / 'config.py')
    (folder / 'worker.py').write_text(WORKER)
    python(
        '-m',
        'torch.distributed.run',
        '--nproc_per_node=2',
        f'--master_port={free_port()}',
        folder / 'worker.py',
        folder / 'config.py',
        cwd=folder,
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return int(probe.getsockname()[1])
