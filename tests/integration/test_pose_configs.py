"""Leaf configs of pose: each builds with MMPose's parts, trains, validates and tests."""

from __future__ import annotations

import copy
import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from mmdet_ext import registry
from mmdet_ext.data.synthetic.stick_figures import make_stick_figures
from mmdet_ext.studies import config_runs
from tests._helpers.configs import leaf_configs, named_types, pose_leaf_configs
from tests._helpers.pose.configs import shrink_pose
from tests._helpers.processes import run_python


class Recorder(Hook):
    """Hook that keeps the weights before training, and the outputs of each iteration."""

    def __init__(self) -> None:
        self.weights: dict[str, torch.Tensor] = {}
        self.outputs: list[dict[str, float]] = []

    def before_train(self, runner: Runner) -> None:
        self.weights = copy.deepcopy(runner.model.state_dict())

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        self.outputs.append({name: float(value) for name, value in outputs.items()})


@dataclass
class Run:
    """Finished run of a shrunk leaf config, and its test results."""

    leaf: Path
    runner: Runner
    recorder: Recorder
    tested: dict[str, float]
    lines: list[dict[str, Any]]


@pytest.fixture(scope='module')
def figures_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('figures') / 'figures'
    make_stick_figures(root, train=6, val=3, width=128, height=96, preview=False)
    return root


@pytest.fixture(
    scope='module',
    params=[
        pytest.param(leaf, id=leaf.stem, marks=pytest.mark.leaf) for leaf in pose_leaf_configs()
    ],
)
def run(
    request: pytest.FixtureRequest, figures_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Run]:
    """Train each leaf config for an epoch of two iterations, validate and test it."""
    pytest.importorskip('mmpose', reason='mmpose is not installed')
    work_dir = tmp_path_factory.mktemp(request.param.stem)
    cfg = shrink_pose(request.param, figures_root, work_dir=str(work_dir))
    recorder = Recorder()
    with DefaultScope.overwrite_default_scope('mmpose'):
        runner = Runner.from_cfg(cfg)
        runner.register_hook(recorder)
        runner.train()
        tested = runner.test()
    scalars = Path(runner.log_dir) / 'vis_data' / 'scalars.json'
    lines = [json.loads(line) for line in scalars.read_text().splitlines()]
    yield Run(request.param, runner, recorder, tested, lines)
    shutil.rmtree(work_dir)


def test_two_iterations_with_finite_losses(run: Run) -> None:
    assert len(run.recorder.outputs) == 2
    for outputs in run.recorder.outputs:
        parts = {name: value for name, value in outputs.items() if name.startswith('loss_')}
        assert len(parts) >= 2 and all(math.isfinite(value) for value in parts.values())
        assert outputs['loss'] == pytest.approx(sum(parts.values()), rel=1e-5)
        assert parts['loss_kpt'] > 0


def test_weights_of_backbone_and_head_change(run: Run) -> None:
    before, moved = run.recorder.weights, set()
    for name, parameter in run.runner.model.named_parameters():
        assert torch.isfinite(parameter).all(), name
        if not torch.equal(before[name], parameter):
            moved.add(name.partition('.')[0])
    assert moved == {'backbone', 'head'}


def test_validation_and_test_report_the_same_figures(run: Run) -> None:
    (validated,) = [line for line in run.lines if 'coco/AP' in line]
    assert {'coco/AP', 'coco/AP .5', 'coco/AP .75', 'coco/AR'} <= set(run.tested)
    assert all(-1 <= value <= 1 for value in run.tested.values())
    assert run.tested == pytest.approx({name: validated[name] for name in run.tested})


def test_the_runner_holds_the_types_that_the_config_names(run: Run) -> None:
    ours = set().union(
        *(
            nodes.module_dict.values()
            for nodes in vars(registry).values()
            if isinstance(nodes, registry.ExtRegistry)
        )
    )
    steps = run.runner.train_dataloader.dataset.pipeline.transforms
    objects = [run.runner.model.head.decoder, *(getattr(step, 'encoder', step) for step in steps)]
    objects += run.runner.model.modules()
    held = {type(item).__name__ for item in objects if type(item) in ours}
    assert held == named_types(Config.fromfile(run.leaf))


def test_every_leaf_is_of_mmpose_and_has_a_codec_of_ours() -> None:
    pytest.importorskip('mmpose', reason='mmpose is not installed')  # its configs are a base
    stems = {leaf.stem for leaf in pose_leaf_configs()}
    for start in ('associative_embedding', 'part_affinity_field'):
        assert {f'{start}_small_stick_figures', f'{start}_hrnet_w32_300e_coco'} <= stems
    assert not stems & {leaf.stem for leaf in leaf_configs()}  # mim finds a config by its stem
    for leaf in pose_leaf_configs():
        cfg = Config.fromfile(leaf)
        assert 'mmdet_ext.compat' in cfg.custom_imports.imports, leaf
        assert 'mmdet_ext.registry' not in cfg.custom_imports.imports  # found by the scope alone
        assert cfg.default_scope == 'mmpose' and config_runs._host(leaf) == 'mmpose'
        encoders = [step for step in cfg.train_dataloader.dataset.pipeline if 'encoder' in step]
        (encoder,) = [step.encoder for step in encoders]
        assert encoder.type == cfg.model.head.decoder.type
        assert encoder.type.startswith('mmdet_ext.')
        # The colours of a figure tell its sides: an image must not be mirrored.
        types = [step.type for step in cfg.train_dataloader.dataset.pipeline]
        assert ('RandomFlip' in types) is ('coco' in leaf.stem)


@pytest.mark.subprocess
@pytest.mark.slow
def test_mim_trains_and_tests_a_leaf(tmp_path: Path, figures_root: Path) -> None:
    pytest.importorskip('mmpose', reason='mmpose is not installed')
    (leaf,) = [leaf for leaf in pose_leaf_configs() if 'field_small' in leaf.stem]
    config, run = tmp_path / 'tiny.py', tmp_path / 'run'
    shrink_pose(leaf, figures_root, log_level='INFO').dump(config)
    run_python('-m', 'mim', 'train', 'mmpose', config, '--work-dir', run, cwd=tmp_path)
    words = ('--checkpoint', run / 'epoch_1.pth', '--work-dir', tmp_path / 'tested')
    tested = run_python('-m', 'mim', 'test', 'mmpose', config, *words, cwd=tmp_path)
    assert 'coco/AP' in tested
