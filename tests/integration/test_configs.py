"""Every leaf config builds with the stock runner, trains and validates."""

from __future__ import annotations

import copy
import json
import math
import re
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

from tests._helpers.configs import CONFIGS, leaf_configs, shrink

BCCD = CONFIGS / 'detection' / 'atss' / 'atss_r18_fpn_12e_bccd.py'
#: What heads make themselves, where the config does not say it.
MADE_BY_HEADS = {
    'FCOSHead': {'FCOSAssigner'},
    'SSDHead': {'OHEMLoss', 'CrossEntropyLoss', 'SmoothL1Loss'},
}
STOCK_BCCD = CONFIGS / 'detection' / 'atss' / 'atss_r18_fpn_stock_12e_bccd.py'


class Recorder(Hook):
    """Keeps the weights before training, the losses of each iteration, and what they pull at."""

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
    """A finished run of a shrunk leaf."""

    leaf: Path
    runner: Runner
    recorder: Recorder

    def scalars(self) -> list[dict[str, Any]]:
        lines = (Path(self.runner.log_dir) / 'vis_data' / 'scalars.json').read_text().splitlines()
        return [json.loads(line) for line in lines]


@pytest.fixture(
    scope='module',
    params=[pytest.param(leaf, id=leaf.stem, marks=pytest.mark.leaf) for leaf in leaf_configs()],
)
def run(
    request: pytest.FixtureRequest, shapes_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Run]:
    """Each leaf, trained for an epoch of two iterations and validated."""
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
    # The logged loss is the mean so far.
    first, second = run.recorder.losses
    assert logged[0]['loss'] == pytest.approx(first, rel=1e-6)
    assert logged[1]['loss'] == pytest.approx((first + second) / 2, rel=1e-6)
    parts = [value for line in logged for key, value in line.items() if key.startswith('loss_')]
    assert len(parts) >= 4 and all(math.isfinite(value) for value in parts)


def test_weights_change_where_they_should(run: Run) -> None:
    before = run.recorder.weights
    moved: list[str] = []
    in_head: list[str] = []
    for name, parameter in run.runner.model.named_parameters():
        changed = not torch.equal(before[name], parameter)
        assert torch.isfinite(parameter).all(), name
        if not parameter.requires_grad:
            assert not changed, name
        # Elsewhere a step may be none or lost in rounding: levels without boxes feel little, a
        # backbone's residual branches begin at zero, gains of norms and scales at one.
        elif parameter.ndim > 1 and 'head' in name:
            assert changed or name not in run.recorder.pulled, name
            in_head += [name]
        moved += [name.partition('.')[0]] * changed
    assert {'backbone', 'neck'} <= set(moved)
    # Mining may leave out a level: of its convolutions none is pulled.
    mined = bool({'OHEMLoss', 'SSDHead'} & named_types(run.leaf))
    assert len(run.recorder.pulled & set(in_head)) >= len(in_head) * (0.5 if mined else 1)


def test_validation_gives_map(run: Run) -> None:
    (val,) = [line for line in run.scalars() if 'coco/bbox_mAP' in line]
    assert val['step'] == 1
    assert 0 <= val['coco/bbox_mAP'] <= 1


def test_holds_the_types_that_the_config_names(run: Run) -> None:
    named = named_types(run.leaf)
    objects: list[Any] = [run.runner.train_dataloader.dataset]
    for module in run.runner.model.modules():
        objects += [module, *vars(module).values()]
    # What an assigner holds, such as an overlap measure, counts too.
    assigners = [item for item in objects if type(item).__name__.endswith('Assigner')]
    objects += [part for assigner in assigners for part in vars(assigner).values()]
    held = {type(item).__name__ for item in objects if _is_ours(type(item))}
    made = set().union(*(parts for head, parts in MADE_BY_HEADS.items() if head in named))
    assert named <= held <= named | made


def named_types(leaf: Path) -> set[str]:
    """The types of ours that a config names."""
    return set(re.findall(r"'mmdet_ext\.(\w+)'", str(Config.fromfile(leaf).to_dict())))


def _is_ours(cls: type) -> bool:
    return cls.__module__.partition('.')[0] == 'mmdet_ext'


def test_leaves_name_something_of_ours() -> None:
    for leaf in leaf_configs():
        ours = named_types(leaf) - {'CocoDataset'}
        assert bool(ours) is ('stock' not in leaf.stem), (leaf, ours)


def differences(a: Any, b: Any, path: str = '') -> dict[str, tuple[Any, Any]]:
    """The leaves in which two configs differ, by dotted key."""
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


def test_bccd_twins_differ_in_two_types_only() -> None:
    ours, stock = (Config.fromfile(path).to_dict() for path in (BCCD, STOCK_BCCD))
    assert differences(ours, stock) == {
        'model.bbox_head.loss_bbox.type': ('mmdet_ext.CIoULoss', 'CIoULoss'),
        'model.train_cfg.assigner.type': ('mmdet_ext.ATSSAssigner', 'ATSSAssigner'),
    }


def test_differences_sees_added_changed_and_reordered() -> None:
    a = {'x': {'y': 1, 'z': [1, 2]}, 'only': 0}
    b = {'x': {'y': 1.0, 'z': [2, 1]}}
    assert differences(a, b) == {
        'x.y': (1, 1.0),
        'x.z.0': (1, 2),
        'x.z.1': (2, 1),
        'only': (0, '<none>'),
    }
