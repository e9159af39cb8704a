"""Small runs of face recognition, for hosts that differ in the model and in how images are packed.

A run has made images of 32 px, a convolution as backbone, and a margin head of seven classes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from mmengine.model import BaseModule
from torch import Tensor, distributed, nn

from mmdet_ext.catalog.case import Case
from mmdet_ext.catalog.cases import cases_of
from mmdet_ext.catalog.face_cases import CHANNELS, CLASSES, INPUT_SIZE
from mmdet_ext.data.synthetic.faces import TRAINED, UNSEEN
from mmdet_ext.face.transforms.align import TEMPLATE
from mmdet_ext.registry import DATASETS
from tests.hosts.runs import Outcome, Setting

SIZE = (INPUT_SIZE, INPUT_SIZE)
BATCH = 4
ARC = dict(type='ArcFace', m=0.1)
ALL_PAIRS: dict[str, Any] = dict(type='mmdet_ext.FaceVerificationMetric', pairs='all', fars=[0.5])
OF_TEMPLATES: dict[str, Any] = dict(type='mmdet_ext.TemplateVerificationMetric', fars=[0.5])


class Small(BaseModule):
    """Backbone of one convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, CHANNELS, 8, 8)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.conv(x).relu().mean((2, 3)),)


@dataclass(frozen=True, eq=False)
class FaceHost:
    """Parts of a recogniser that differ by host.

    Attributes:
        model: makes the model from the configs of preprocessor, backbone and head.
        pack: last step of a pipeline.
        resize: step that resizes images to 32 px.
    """

    model: Callable[[Any, Any, Any], Any]
    pack: Any
    resize: Any

    def pipeline(self) -> list[Any]:
        """Return the usual steps."""
        return [dict(type='mmdet_ext.LoadFace'), self.resize, self.pack]


def with_landmarks(entry: dict[str, Any]) -> dict[str, Any]:
    """Add the landmarks of a face that fills its image."""
    height, width = entry['img'].shape[:2]
    return {**entry, 'landmarks': np.array(TEMPLATE) * (width / 112, height / 112)}


def configured(case: Case, **more: Any) -> dict[str, Any]:
    """Return the config of a case."""
    return dict(type=f'mmdet_ext.{case.name}', **case.options, **more)


def folder_set(root: Path, people: tuple[str, ...], pipeline: list[Any]) -> dict[str, Any]:
    """Return the config of the made images of some identities."""
    return dict(
        type='mmdet_ext.FaceFolderDataset',
        data_root=str(root / 'faces'),
        identities=list(people),
        pipeline=pipeline,
    )


@cache
def usual_sets(host: FaceHost, root: Path) -> tuple[Any, Any]:
    """Return the data sets that most runs share: each of MMEngine's collects garbage."""
    pipeline = host.pipeline()
    train, test = (
        DATASETS.build(folder_set(root, people, pipeline)) for people in (TRAINED, UNSEEN)
    )
    return train, test


def face_setting(case: Case, host: FaceHost, root: Path) -> Setting:
    """Return a run in which a component takes part.

    Args:
        case: the component.
        host: how the host builds the model.
        root: folder of `mmdet_ext.data.synthetic.faces.make_faces`.
    """
    made = configured(case)
    head: dict[str, Any] = dict(
        type='mmdet_ext.MarginHead', num_classes=CLASSES, in_channels=CHANNELS, margin=ARC
    )
    parts: dict[str, Any] = dict(
        preprocessor=dict(type='mmdet_ext.FaceDataPreprocessor'), backbone=Small(), head=head
    )
    train, test = usual_sets(host, root)
    metric = ALL_PAIRS
    options: dict[str, Any] = {}
    sampler: dict[str, Any] = dict(type='InfiniteSampler', shuffle=False)
    if case.kind == 'margin':
        head['margin'] = dict(type=case.name, **case.options)
    elif case.kind == 'feature loss':
        head.update(margin=None, aux_losses=[made])
    elif case.kind in ('backbone', 'preprocessor'):
        parts[case.kind] = made
    elif case.kind == 'face head':
        parts['head'] = made
    elif case.kind == 'transform':
        pipeline = pipeline_with(case, host)
        train, test = (folder_set(root, people, pipeline) for people in (TRAINED, UNSEEN))
    elif case.kind in ('face data set', 'metric'):
        train, test, metric = evaluated_with(case, host, root)
    elif case.kind == 'data sampler':
        sampler = made
    elif case.kind == 'hook':
        options['custom_hooks'] = [hook_of(case)]
    elif case.kind == 'model wrapper':
        head['type'] = 'mmdet_ext.ShardedMarginHead'
        options.update(cfg=dict(model_wrapper_cfg=made), launcher='pytorch')
    return Setting(
        host.model(parts['preprocessor'], parts['backbone'], parts['head']),
        train,
        test,
        metric,
        options,
        batch=BATCH,
        sampler=sampler,
    )


@contextmanager
def group_for(case: Case) -> Iterator[None]:
    """Run the block in a group of one process, if the component needs a group."""
    if case.kind != 'model wrapper':
        yield
        return
    distributed.init_process_group('gloo', store=distributed.HashStore(), rank=0, world_size=1)
    try:
        with patch.dict(os.environ, LOCAL_RANK='0'):
            yield
    finally:
        distributed.destroy_process_group()


def evaluated_with(case: Case, host: FaceHost, root: Path) -> tuple[Any, Any, dict[str, Any]]:
    """Return the data sets of training and test and the metric, with a data set or a metric."""
    train, test = usual_sets(host, root)
    if case.name == 'TemplateVerificationMetric':
        (templates,) = (one for one in cases_of('face data set') if 'pair_file' in one.options)
        return train, data_of(templates, host, root), OF_TEMPLATES
    if case.kind == 'metric':
        return train, test, configured(case)
    found = data_of(case, host, root)
    if case.divisible:
        return found, test, ALL_PAIRS
    # Pairs are tested on. Where the files name no identities, none can be trained.
    listed = dict(ALL_PAIRS, pairs='dataset')
    return train, found, OF_TEMPLATES if case.name == 'FaceTemplatesDataset' else listed


def pipeline_with(case: Case, host: FaceHost) -> list[Any]:
    """Return the usual steps with a transform in its place."""
    load, resize, pack = host.pipeline()
    if case.name == 'AlignFace':
        return [load, with_landmarks, configured(case, size=SIZE), pack]
    return [configured(case), resize, pack]


def data_of(case: Case, host: FaceHost, root: Path) -> dict[str, Any]:
    """Return the config of a data set, which reads the made files in its own form."""
    at_root = case.name in ('FacePairsDataset', 'FaceTemplatesDataset')
    folder = root if at_root else root / case.folder
    where = {} if case.root is None else {case.root: str(folder)}
    return configured(case, **where, pipeline=host.pipeline())


def hook_of(case: Case) -> dict[str, Any]:
    """Return the config of a hook, for a run that counts iterations."""
    if case.name == 'FeatureScatterHook':
        return configured(case, by_epoch=False, interval=1, dataset='test', animation=False)
    if case.name == 'ShardedEMAHook':
        return configured(case)
    return configured(case, by_epoch=False)


def assert_took_part(case: Case, outcome: Outcome, folder: Path) -> None:
    """Assert that the component of a case was used in a run."""
    model, losses = outcome.runner.model, outcome.watch.losses
    parts = {type(part).__name__ for part in model.modules()}
    kinds = ('margin', 'feature loss', 'backbone', 'face head', 'preprocessor', 'model wrapper')
    if case.kind in kinds:
        assert case.name in parts
    if case.kind == 'feature loss':
        named = [name for name in losses[0] if name.startswith('loss_')]
        assert named and any(step[name] > 0 for step in losses for name in named)
    else:
        assert all(step['loss'] > 0 and 'own_cosine' in step for step in losses)
    if case.kind == 'face data set':
        sizes = [len(loader.dataset) for loader in loaders_of(outcome)]
        assert case.images in sizes
    if case.name == 'MarginScheduleHook':
        assert 0 < model.head.margin.m.number <= case.options['stop']
    if case.name == 'FeatureScatterHook':
        assert len(list(folder.rglob('*_0*.png'))) >= 2
    if case.name == 'ShardedCheckpointHook':
        kept = {path.parent.name for path in folder.rglob('manifest.json')}
        assert kept == {f'iter_{outcome.runner.iter}'}
    prefix = outcome.runner.test_evaluator.metrics[0].prefix
    assert all(name.startswith(f'{prefix}/') for name in outcome.metrics)


def loaders_of(outcome: Outcome) -> tuple[Any, Any]:
    """Return the loaders of training and test."""
    return outcome.runner.train_dataloader, outcome.runner.test_dataloader
