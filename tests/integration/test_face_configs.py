"""Leaf configs of faces: each builds with the stock runner, trains, validates and tests."""

from __future__ import annotations

import copy
import json
import math
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import EMAHook, Hook
from mmengine.runner import Runner, load_checkpoint

from mmdet_ext import registry
from mmdet_ext.data.synthetic.faces import make_faces
from tests._helpers.configs import bare, face_leaf_configs, leaf_configs, named_types, shrink_face

#: Options of the head whose types, margins and losses, need no scope.
UNPREFIXED = ('margin', 'aux_losses')


class Recorder(Hook):
    """Hook that keeps the weights before training, and the outputs of each iteration."""

    def __init__(self) -> None:
        self.weights: dict[str, torch.Tensor] = {}
        self.outputs: list[dict[str, float]] = []
        self.images: list[torch.Tensor] = []

    def before_train(self, runner: Runner) -> None:
        self.weights = copy.deepcopy(runner.model.state_dict())

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        self.images.append(torch.stack(list(data_batch['inputs'])))

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
    lines: list[dict[str, Any]] = field(default_factory=list)

    @property
    def head(self) -> Any:
        return self.runner.model.head

    def validated(self) -> dict[str, Any]:
        """Return the results in the logged line of the validation."""
        (line,) = [line for line in self.lines if 'face/auc' in line]
        return {key: value for key, value in line.items() if '/' in key}


@pytest.fixture(scope='module')
def faces_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('faces')
    make_faces(root)
    return root


@pytest.fixture(
    scope='module',
    params=[
        pytest.param(leaf, id=leaf.stem, marks=pytest.mark.leaf) for leaf in face_leaf_configs()
    ],
)
def run(
    request: pytest.FixtureRequest, faces_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Run]:
    """Train each leaf config for an epoch of two iterations, validate and test it."""
    work_dir = tmp_path_factory.mktemp(request.param.stem)
    cfg = shrink_face(request.param, faces_root, work_dir=str(work_dir))
    recorder = Recorder()
    runner = Runner.from_cfg(cfg)
    runner.register_hook(recorder)
    runner.train()
    if any(isinstance(hook, EMAHook) for hook in runner.hooks):
        # The averaged weights are validated and saved. A test in the same process would start new
        # averages from the last weights.
        load_checkpoint(runner.model, (work_dir / 'last_checkpoint').read_text().strip())
    scalars = Path(runner.log_dir) / 'vis_data' / 'scalars.json'
    lines = [json.loads(line) for line in scalars.read_text().splitlines()]
    yield Run(request.param, runner, recorder, runner.test(), lines)
    shutil.rmtree(work_dir)


def test_two_iterations_with_finite_losses(run: Run) -> None:
    logged = [line for line in run.lines if 'loss' in line]
    assert [line['step'] for line in logged] == [1, 2]
    first, second = run.recorder.outputs
    assert all(math.isfinite(value) for value in (*first.values(), *second.values()))
    assert first['loss'] > 0 or run.head.margin is None
    # The total sums the losses only; 'own_cosine' and counts are just logged.
    parts = [key for key in first if key.startswith('loss_')]
    assert len(parts) == len(run.head.aux_losses) + (type(run.head.margin).__name__ == 'MagFace')
    assert logged[0]['loss'] == pytest.approx(first['loss'], rel=1e-5)
    assert logged[1]['loss'] == pytest.approx((first['loss'] + second['loss']) / 2, rel=1e-5)


def test_batches_are_of_different_images_and_vary_within(run: Run) -> None:
    one, other = run.recorder.images
    assert len(one) == len(other) == 4 and one.dtype == torch.uint8
    together = torch.cat([one, other]).flatten(1)
    assert len(together.unique(dim=0)) >= 4
    assert (together.float().std(1) > 1).all()


def test_backbone_and_centres_move_and_stay_finite(run: Run) -> None:
    before, moved = run.recorder.weights, set()
    for name, parameter in run.runner.model.named_parameters():
        if name == 'head.weight_drawn':  # empty between steps
            continue
        assert torch.isfinite(parameter).all(), name
        changed = not torch.equal(before[name], parameter)
        assert parameter.requires_grad or not changed, name
        # Updates of a bias before a batch norm, and of a gain of one, may be lost in rounding.
        if parameter.requires_grad and parameter.ndim > 1:
            assert changed, name
        moved |= {name.partition('.')[0]} if changed else set()
    assert 'backbone' in moved
    if run.head.margin is not None:
        rows = before['head.weight'].ne(run.head.weight).any(1)
        # A batch moves all centres, those of other classes too, unless classes are sampled.
        assert rows.all() if run.head.sampled is None else rows.any()
    for name, value in run.runner.model.state_dict().items():
        if name.endswith('running_var'):
            assert not torch.equal(before[name], value), name


def test_validation_gives_the_metrics_of_its_evaluator(run: Run) -> None:
    found = run.validated()
    for key, value in found.items():
        # The threshold is infinite if refusing all pairs is best.
        assert math.isfinite(value) or ('threshold' in key and value > 0), key
        if re.search(r'/(auc|eer|(balanced_)?accuracy(_best)?|rank-.*|(tar|tpir)@.*)$', key):
            assert 0 <= value <= 1, key
    assert {'face/auc', 'face/eer'} <= set(found)
    assert found['face/zero_embeddings'] == 0
    # An independent count. A hardly trained network gives nearly equal embeddings, whose order
    # depends on rounding, so such pairs may count for either kind.
    same, cosine = pairs_of(run)
    assert found['face/genuine_pairs'] == same.sum() > 0
    assert found['face/impostor_pairs'] == (~same).sum() > 0
    above = cosine[same][:, None] - cosine[~same]
    least, most = (above > 1e-6).mean(), (above > -1e-6).mean()
    assert least - 1e-9 <= found['face/auc'] <= most + 1e-9


def test_test_results_equal_validation_results(run: Run) -> None:
    cfg = run.runner.cfg
    if any(cfg[f'val_{part}'] != cfg[f'test_{part}'] for part in ('dataloader', 'evaluator')):
        pytest.skip('this leaf tests otherwise than it validates')
    assert run.tested == pytest.approx(run.validated(), rel=1e-6)


def pairs_of(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Return whether each pair of the validation is genuine, and its cosine."""
    model, loader = run.runner.model.eval(), run.runner.val_loop.dataloader
    with torch.no_grad():
        samples = [sample for batch in loader for sample in model.val_step(batch)]
    table = torch.stack([sample.embedding for sample in samples]).double()
    labels = np.array([int(sample.gt_label) for sample in samples])
    numbers = [sample.sample_idx for sample in samples]
    assert numbers == list(range(len(loader.dataset)))
    unit = torch.nn.functional.normalize(table).numpy()
    pairs = loader.dataset.metainfo.get('pairs')
    if pairs is None:
        index = np.stack(np.triu_indices(len(labels), 1), 1)
        same = labels[index[:, 0]] == labels[index[:, 1]]
    else:
        index, same = pairs['index'], pairs['same']
    return same, (unit[index[:, 0]] * unit[index[:, 1]]).sum(1)


def test_holds_the_types_that_the_config_names(run: Run) -> None:
    runner = run.runner
    loops = (runner.train_loop, runner.val_loop, runner.test_loop)
    objects: list[Any] = list(runner.hooks)
    for loop in loops:
        loader = loop.dataloader
        objects += [loader.dataset, loader.sampler, *loader.dataset.pipeline.transforms]
        objects += getattr(getattr(loop, 'evaluator', None), 'metrics', [])
    objects += runner.model.modules()
    ours = set().union(
        *(
            nodes.module_dict.values()
            for nodes in vars(registry).values()
            if isinstance(nodes, registry.ExtRegistry)
        )
    )
    held = {type(item).__name__ for item in objects if type(item) in ours}
    assert held == all_named_types(run.leaf)


def all_named_types(leaf: Path) -> set[str]:
    """Return the types of this package that a config names, also those without a scope."""
    cfg = Config.fromfile(leaf)
    # A run of one process wraps no model.
    cfg.pop('model_wrapper_cfg', None)
    named = named_types(cfg)
    for key in UNPREFIXED:
        part = cfg.model.head.get(key) or []
        for option in [part] if isinstance(part, dict) else part:
            named.add(bare(option['type']))
    return named


@pytest.mark.slow
def test_shrinking_keeps_all_types_but_half_precision(faces_root: Path) -> None:
    for leaf in face_leaf_configs():
        whole, small = (
            [value.replace('AmpOptimWrapper', 'OptimWrapper') for value in types(cfg.to_dict())]
            for cfg in (Config.fromfile(leaf), shrink_face(leaf, faces_root))
        )
        assert whole == small, leaf


def types(node: Any) -> Iterator[str]:
    """Yield all types that a config names, without scope or path, in the order of its keys."""
    if isinstance(node, dict):
        yield from [bare(node['type'])] if 'type' in node else []
        for key in sorted(node):
            yield from types(node[key])
    elif isinstance(node, (list, tuple)):
        for part in node:
            yield from types(part)


def test_every_leaf_is_of_detection_or_of_face() -> None:
    faces, others = face_leaf_configs(), leaf_configs()
    assert faces == sorted(faces) and others == sorted(others)
    assert all(path.parent.parent.name in ('face', 'margins') for path in faces)
    assert not set(faces) & set(others)
    assert not any({'face', 'margins'} & set(path.parts) for path in others)
    # mim finds a config by the stem of its file name.
    stems = [path.stem for path in faces]
    assert len(set(stems)) == len(stems) and not set(stems) & {path.stem for path in others}


def test_batch_size_fits_the_balanced_sampler() -> None:
    """Compare both sizes, because a sampler does not know the batch size of its loader."""
    counted = 0
    for leaf in face_leaf_configs():
        loader = Config.fromfile(leaf).train_dataloader
        if bare(loader.sampler.type) == 'IdentityBalancedSampler':
            sampler = loader.sampler
            assert loader.batch_size == (
                sampler.identities_per_batch * sampler.pictures_per_identity
            ), leaf
            counted += 1
    assert counted


def test_buffers_are_synchronised_before_evaluation_and_checkpoints_load() -> None:
    for leaf in face_leaf_configs():
        cfg = Config.fromfile(leaf)
        assert 'mmdet_ext.compat' in cfg.custom_imports.imports, leaf
        hooks = cfg.default_hooks
        assert bare(hooks.sync_buffers.type) == 'SyncBuffersHook', leaf


def test_num_classes_equal_the_published_number_of_identities() -> None:
    published = {
        'ms1mv3': 93431,
        'glint360k': 360232,
        'webface42m': 2059906,
        'webface12m': 617970,
        'digits': 7,
    }
    counted = 0
    for leaf in face_leaf_configs():
        data = leaf.stem.rpartition('_')[2]
        if data in published:
            cfg = Config.fromfile(leaf)
            assert cfg.model.head.num_classes == published[data], leaf
            counted += 1
    assert counted >= len(published)
