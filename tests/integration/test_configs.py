"""Every leaf config trains and validates with the stock runner."""

from __future__ import annotations

import copy
import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from tests._helpers.configs import CONFIGS, leaf_configs, named_types, shrink

BCCD = CONFIGS / 'detection' / 'atss' / 'atss_r18_fpn_12e_bccd.py'
#: Components that heads build themselves, without a config that names them.
MADE_BY_HEADS = {
    'BiFPN': {'BiFPNStage', 'FusionNode'},
    'CSPDarknet53': {'CSPStage'},
    'FCOSHead': {'FCOSAssigner'},
    'GhostPAN': {'GhostBottleneck', 'GhostModule'},
    'LightHeadRoIHead': {'LargeSeparableConv'},
    'ShuffleNetV2Backbone': {'ShuffleBlock'},
    'SPPRoIExtractor': {'SpatialPyramidPool'},
    'SSDHead': {'OHEMLoss', 'CrossEntropyLoss', 'SmoothL1Loss'},
    'YOLOV3Head': {'GridSensitiveCoder'},
    'YOLOV2Head': {'YOLOV2Scales'},
    'YOLOV4Neck': {'UpBlock', 'DownBlock'},
    'YOLOv5Backbone': {'CSPBlock', 'PoolingPyramid'},
    'YOLOv5Head': {'AnchorWatch', 'YOLOV5Scales'},
}
MMDET_BCCD = CONFIGS / 'detection' / 'atss' / 'atss_r18_fpn_stock_12e_bccd.py'


class Recorder(Hook):
    """Hook that keeps the first weights, the losses, and the names of weights with a gradient."""

    def __init__(self) -> None:
        self.weights: dict[str, torch.Tensor] = {}
        self.losses: list[float] = []
        self.pulled: set[str] = set()

    def before_train(self, runner: Runner) -> None:
        self.weights = copy.deepcopy(runner.model.state_dict())
        for name, parameter in runner.model.named_parameters():
            if parameter.requires_grad:
                parameter.register_hook(partial(self._note, name))

    def _note(self, name: str, gradient: torch.Tensor) -> None:
        if gradient.any():
            self.pulled.add(name)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        self.losses.append(outputs['loss'].item())


@dataclass
class Run:
    """Finished run of a small leaf config."""

    leaf: Path
    runner: Runner
    recorder: Recorder

    def scalars(self) -> list[dict[str, Any]]:
        """Return the lines that the runner logged."""
        lines = (Path(self.runner.log_dir) / 'vis_data' / 'scalars.json').read_text().splitlines()
        return [json.loads(line) for line in lines]


@pytest.fixture(
    scope='module',
    params=[pytest.param(leaf, id=leaf.stem, marks=pytest.mark.leaf) for leaf in leaf_configs()],
)
def run(
    request: pytest.FixtureRequest, shapes_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Run]:
    """Train each leaf for an epoch of two iterations, and validate it."""
    work_dir = tmp_path_factory.mktemp(request.param.stem)
    cfg = shrink(request.param, shapes_root, work_dir=str(work_dir))
    recorder = Recorder()
    runner = Runner.from_cfg(cfg)
    runner.register_hook(recorder)
    runner.train()
    yield Run(request.param, runner, recorder)
    # The checkpoints of all leaves are more than 13 GB.
    shutil.rmtree(work_dir)


def test_two_iterations_with_finite_losses(run: Run) -> None:
    logged = [line for line in run.scalars() if 'loss' in line]
    assert [line['step'] for line in logged] == [1, 2]
    assert len(run.recorder.losses) == 2
    assert all(math.isfinite(loss) and loss > 0 for loss in run.recorder.losses)
    # The logged loss is the mean of the iterations so far.
    first, second = run.recorder.losses
    assert logged[0]['loss'] == pytest.approx(first, rel=1e-6)
    assert logged[1]['loss'] == pytest.approx((first + second) / 2, rel=1e-6)
    # mmdet's CornerHead reports det_loss, where others report loss_cls.
    parts = [
        value for line in logged for key, value in line.items() if key != 'loss' and 'loss' in key
    ]
    assert len(parts) >= 4 and all(math.isfinite(value) for value in parts)


def test_weights_of_backbone_neck_and_heads_change(run: Run) -> None:
    before = run.recorder.weights
    moved: list[str] = []
    in_head: list[str] = []
    for name, parameter in run.runner.model.named_parameters():
        changed = not torch.equal(before[name], parameter)
        assert torch.isfinite(parameter).all(), name
        if not parameter.requires_grad:
            assert not changed, name
        # Other weights may stay as they are: gradients of levels without boxes are small,
        # residual branches of a backbone begin at zero, and a small step from a gain of one is
        # lost in rounding.
        elif parameter.ndim > 1 and 'head' in name:
            assert changed or name not in run.recorder.pulled, name
            in_head += [name]
        moved += [name.partition('.')[0]] * changed
    parts = {name.partition('.')[0] for name in run.recorder.pulled}
    assert parts <= set(moved)
    assert {'backbone', 'neck'} & {name.partition('.')[0] for name in before} <= parts
    # Mining may leave out all priors of a level, whose convolutions then have no gradient.
    mined = bool({'OHEMLoss', 'SSDHead'} & named_types(Config.fromfile(run.leaf)))
    assert len(run.recorder.pulled & set(in_head)) >= len(in_head) * (0.5 if mined else 1)


def test_validation_reports_map(run: Run) -> None:
    (val,) = [line for line in run.scalars() if 'coco/bbox_mAP' in line]
    assert val['step'] == 1
    assert 0 <= val['coco/bbox_mAP'] <= 1


def test_predictions_of_an_image(run: Run) -> None:
    model = run.runner.model.eval()
    sample, *_ = model.test_step(next(iter(run.runner.val_dataloader)))
    found, (height, width) = sample.pred_instances, sample.ori_shape
    assert len(found) > 0
    assert found.bboxes.shape == (len(found), 4) and torch.isfinite(found.bboxes).all()
    assert ((found.scores >= 0) & (found.scores <= 1)).all()
    assert set(found.labels.tolist()) <= {0, 1, 2}
    if hasattr(found, 'masks'):
        assert found.masks.shape == (len(found), height, width)


def test_the_runner_holds_the_types_that_the_config_names(run: Run) -> None:
    # A suppression rule is a function, which nothing holds.
    named = {name for name in named_types(Config.fromfile(run.leaf)) if name[0].isupper()}
    loader = run.runner.train_dataloader
    dataset, objects = loader.dataset, [loader.sampler, loader.batch_sampler.sampler]
    while dataset is not None:  # a wrapper, and what it holds
        steps = getattr(dataset, 'pipeline', [])
        objects += [dataset, *getattr(steps, 'transforms', steps)]
        dataset = getattr(dataset, 'dataset', None)
    for module in run.runner.model.modules():
        objects += [module, *vars(module).values()]
    for hook in run.runner.hooks:
        objects += [hook, *vars(hook).values()]
    # Parts of an assigner, such as an overlap measure, count too.
    assigners = [item for item in objects if type(item).__name__.endswith('Assigner')]
    objects += [part for assigner in assigners for part in vars(assigner).values()]
    held = {type(item).__name__ for item in objects if _is_ours(type(item))}
    made = set().union(*(parts for head, parts in MADE_BY_HEADS.items() if head in named))
    assert named <= held <= named | made


def _is_ours(cls: type) -> bool:
    return cls.__module__.partition('.')[0] == 'mmdet_ext'


@pytest.mark.slow
def test_every_leaf_but_those_of_mmdet_names_a_type_of_ours() -> None:
    for leaf in leaf_configs():
        cfg = Config.fromfile(leaf)
        ours = named_types(cfg) - {'CocoDataset'}
        # Leaves of the zoo have mmdet's parts where it has them.
        if leaf.parent.name != 'zoo_small':
            assert bool(ours) is ('stock' not in leaf.stem), (leaf, ours)
        # Checkpoints load wherever a leaf is read.
        assert 'mmdet_ext.compat' in cfg.custom_imports.imports, leaf


def differences(a: Any, b: Any, path: str = '') -> dict[str, tuple[Any, Any]]:
    """Return the values in which two configs differ, by dotted key."""
    if isinstance(a, dict) and isinstance(b, dict):
        pairs = [(str(key), a.get(key, '<none>'), b.get(key, '<none>')) for key in {*a, *b}]
    elif isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        pairs = [(str(i), x, y) for i, (x, y) in enumerate(zip(a, b, strict=True))]
    else:
        return {} if type(a) is type(b) and a == b else {path: (a, b)}
    found = {}
    for key, x, y in pairs:
        found.update(differences(x, y, f'{path}.{key}' if path else key))
    return found


def test_bccd_configs_of_ours_and_of_mmdet_differ_in_two_types() -> None:
    ours, theirs = (Config.fromfile(path).to_dict() for path in (BCCD, MMDET_BCCD))
    assert differences(ours, theirs) == {
        'model.bbox_head.loss_bbox.type': ('mmdet_ext.CIoULoss', 'CIoULoss'),
        'model.train_cfg.assigner.type': ('mmdet_ext.ATSSAssigner', 'ATSSAssigner'),
    }


def test_differences_of_configs_are_found() -> None:
    a = {'x': {'y': 1, 'z': [1, 2]}, 'only': 0}
    b = {'x': {'y': 1.0, 'z': [2, 1]}}
    assert differences(a, b) == {
        'x.y': (1, 1.0),
        'x.z.0': (1, 2),
        'x.z.1': (2, 1),
        'only': (0, '<none>'),
    }
