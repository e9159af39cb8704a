"""Leaf configs of segmentation: each builds with mmseg's parts, trains, validates and tests."""

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
from mmengine.runner import Runner

from mmdet_ext import registry
from mmdet_ext.data.synthetic.shape_masks import MASK_CLASSES, PALETTE
from mmdet_ext.data.synthetic.shapes import make_shapes
from tests._helpers.configs import (
    CONFIGS,
    face_leaf_configs,
    leaf_configs,
    named_types,
    segmentation_leaf_configs,
    shrink_segmentation,
)

LOSSES = ('cross_entropy', 'dice', 'dice_ce', 'focal')


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
        self.outputs.append({name: value.item() for name, value in outputs.items()})


@dataclass
class Run:
    """Finished run of a shrunk leaf config, and its test results."""

    leaf: Path
    runner: Runner
    recorder: Recorder
    tested: dict[str, float]
    lines: list[dict[str, Any]]

    def heads(self) -> list[Any]:
        return [
            head for name in ('decode_head', 'auxiliary_head')
            if (head := getattr(self.runner.model, name, None)) is not None
        ]  # fmt: skip


@pytest.fixture(scope='module')
def masks_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('masks') / 'shapes'
    make_shapes(root, train=8, val=4, width=96, height=76, preview=False, masks=True)
    return root


@pytest.fixture(
    scope='module',
    params=[
        pytest.param(leaf, id=leaf.stem, marks=pytest.mark.leaf)
        for leaf in segmentation_leaf_configs()
    ],
)
def run(
    request: pytest.FixtureRequest, masks_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Run]:
    """Train each leaf config for an epoch of two iterations, validate and test it."""
    pytest.importorskip('mmseg', reason='mmsegmentation is not installed')
    work_dir = tmp_path_factory.mktemp(request.param.stem)
    cfg = shrink_segmentation(request.param, masks_root, work_dir=str(work_dir))
    recorder = Recorder()
    runner = Runner.from_cfg(cfg)
    runner.register_hook(recorder)
    runner.train()
    scalars = Path(runner.log_dir) / 'vis_data' / 'scalars.json'
    lines = [json.loads(line) for line in scalars.read_text().splitlines()]
    yield Run(request.param, runner, recorder, runner.test(), lines)
    shutil.rmtree(work_dir)


def test_two_iterations_with_finite_losses_of_every_head(run: Run) -> None:
    assert len(run.recorder.outputs) == 2
    prefixes = ('decode', 'aux')[: len(run.heads())]
    for outputs in run.recorder.outputs:
        parts = {name: value for name, value in outputs.items() if '.loss_' in name}
        assert all(math.isfinite(value) and value > 0 for value in parts.values())
        assert outputs['loss'] == pytest.approx(sum(parts.values()), rel=1e-5)
        names = []
        for prefix, head in zip(prefixes, run.heads(), strict=True):
            losses = head.loss_decode
            losses = losses if isinstance(losses, torch.nn.ModuleList) else [losses]
            names += [f'{prefix}.{loss.loss_name}' for loss in losses]
        assert sorted(parts) == sorted(names)


def test_weights_of_backbone_and_heads_change(run: Run) -> None:
    before, moved = run.recorder.weights, set()
    for name, parameter in run.runner.model.named_parameters():
        assert torch.isfinite(parameter).all(), name
        changed = not torch.equal(before[name], parameter)
        # Residual branches of a ResNet begin at zero, whose weights have no gradient at first.
        assert changed or parameter.ndim == 1 or 'backbone.layer' in name, name
        moved |= {name.partition('.')[0]} if changed else set()
    heads = ['decode_head', 'auxiliary_head'][: len(run.heads())]
    assert moved == {'backbone', *heads}


def test_validation_and_test_report_the_same_figures(run: Run) -> None:
    (validated,) = [line for line in run.lines if 'mIoU' in line]
    assert set(run.tested) > {'aAcc', 'mIoU', 'mAcc', 'IoU_triangle'}
    assert all(0 <= value <= 100 or math.isnan(value) for value in run.tested.values())
    assert run.tested == pytest.approx({name: validated[name] for name in run.tested}, nan_ok=True)


def test_counts_and_figure_lie_beside_the_log(run: Run) -> None:
    folder = Path(run.runner.log_dir)
    content = json.loads((folder / 'segmentation.json').read_text())
    assert content['classes'] == list(MASK_CLASSES)
    assert content['pixels'] + content['ignored_pixels'] == 2 * 96 * 76
    assert (folder / 'confusion_matrix.png').stat().st_size > 10_000
    assert round(content['figures']['mIoU'], 2) == run.tested['mIoU']


def test_the_runner_holds_the_types_that_the_config_names(run: Run) -> None:
    ours = set().union(
        *(
            nodes.module_dict.values()
            for nodes in vars(registry).values()
            if isinstance(nodes, registry.ExtRegistry)
        )
    )
    objects = [*run.runner.model.modules(), *run.runner.val_loop.evaluator.metrics]
    held = {type(item).__name__ for item in objects if type(item) in ours}
    assert held == named_types(Config.fromfile(run.leaf))


def test_both_segmentors_have_a_config_of_each_loss() -> None:
    stems = {leaf.stem for leaf in segmentation_leaf_configs()}
    for start in ('fcn_r18', 'unet_s4'):
        assert {f'{start}_{loss}_36e_shapes' for loss in (*LOSSES, 'stock')} <= stems
    others = {leaf.stem for leaf in (*leaf_configs(), *face_leaf_configs())}
    assert not stems & others  # mim finds a config by the stem of its file name


def test_every_leaf_but_the_reference_has_a_loss_of_ours_and_nothing_else_differs() -> None:
    for leaf in segmentation_leaf_configs():
        cfg = Config.fromfile(leaf)
        assert 'mmdet_ext.compat' in cfg.custom_imports.imports, leaf
        assert cfg.default_scope == 'mmseg'
        start, end = leaf.stem.split('_')[:2], leaf.stem.split('_')[-2:]
        stock = Config.fromfile(leaf.with_name('_'.join([*start, 'stock', *end]) + '.py'))
        assert bool(named_types(cfg.model)) is ('stock' not in leaf.stem)
        kept, reference = cfg.to_dict(), stock.to_dict()
        for part in (kept['model'], reference['model']):
            part['decode_head'].pop('loss_decode')
            part['decode_head'].pop('sampler', None)
            part.pop('auxiliary_head', None)
        assert kept == reference, leaf


def test_classes_and_colours_are_those_of_the_masks() -> None:
    cfg = Config.fromfile(CONFIGS / '_base_' / 'datasets' / 'shapes_masks.py')
    assert cfg.metainfo.classes == MASK_CLASSES
    assert [tuple(colour) for colour in cfg.metainfo.palette] == list(PALETTE)
    for leaf in segmentation_leaf_configs():
        model = Config.fromfile(leaf).model
        for head in (model.decode_head, model.get('auxiliary_head')):
            assert head is None or head.num_classes == len(MASK_CLASSES), leaf
