"""Everything that claims bare MMEngine, under a model of a few lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch.utils.data import Dataset

from mmdet_ext.catalog.case import Case
from mmdet_ext.catalog.hosts import claims, host
from mmdet_ext.registry import MODELS
from tests.hosts.faces import SIZE, FaceHost, assert_took_part, face_setting, group_for
from tests.hosts.runs import Setting, follow

HOST = host('mmengine')
LOSSES = [case for case in claims('mmengine') if case.kind == 'loss']
FACES = [case for case in claims('mmengine') if case.kind != 'loss']
SAMPLES = 8


class Inputs(Dataset[dict[str, Any]]):
    """Data set of the inputs of a loss's case."""

    def __init__(self, case: Case) -> None:
        self.pred, self.target = case.inputs(torch.Generator().manual_seed(0), SAMPLES)

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, place: int) -> dict[str, Any]:
        if isinstance(self.target, tuple):
            target: Any = tuple(part[place] for part in self.target)
        else:
            target = self.target[place]
        return dict(x=self.pred[place], target=target)


class Net(BaseModel):
    """Model of one linear layer, which begins as a small change of its input."""

    def __init__(self, loss: dict[str, Any], channels: int, activated: bool) -> None:
        super().__init__()
        self.layer = nn.Linear(channels, channels)
        self.loss = MODELS.build(loss)
        self.activated = activated

    def forward(self, x: Tensor, target: Any, mode: str = 'loss') -> Any:
        x = x.logit() if self.activated else x
        pred = (x.movedim(1, -1) + 0.01 * self.layer(x.movedim(1, -1))).movedim(-1, 1)
        pred = pred.sigmoid() if self.activated else pred
        if mode == 'loss':
            return dict(loss=self.loss(pred, tuple(target) if type(target) is list else target))
        return list(pred)


class Mean(BaseMetric):
    """Metric that returns the mean prediction."""

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results += [float(sample.mean()) for sample in data_samples]

    def compute_metrics(self, results: list[float]) -> dict[str, float]:
        assert len(results) == SAMPLES
        return dict(mean=sum(results) / len(results))


@pytest.mark.parametrize('case', LOSSES, ids=repr)
def test_a_loss_trains_tests_and_resumes(case: Case, tmp_path: Path) -> None:
    data = Inputs(case)
    loss = dict(type=f'mmdet_ext.{case.name}', **case.options)
    model = Net(loss, data.pred.shape[1], bool(case.options.get('activated')))
    setting = Setting(model, data, data, [Mean()], batch=4, collate='default_collate')
    outcome = follow(HOST, setting, tmp_path)
    assert set(outcome.watch.losses[0]) == {'loss'}
    assert outcome.watch.pulled >= {'prediction', 'layer.weight', 'layer.bias'}


class Recogniser(BaseModel):
    """Model of a backbone and a head."""

    def __init__(self, preprocessor: Any, backbone: Any, head: Any) -> None:
        super().__init__(data_preprocessor=preprocessor)
        self.backbone = MODELS.build(backbone) if isinstance(backbone, dict) else backbone
        self.head = MODELS.build(head)

    def forward(self, inputs: Tensor, data_samples: Any = None, mode: str = 'tensor') -> Any:
        feats = self.backbone(inputs)
        if mode == 'tensor':
            return feats
        return getattr(self.head, mode)(feats, data_samples)


def shrunk(entry: dict[str, Any]) -> dict[str, Any]:
    """Resize an image."""
    return {**entry, 'img': cv2.resize(entry['img'], SIZE)}


def packed(entry: dict[str, Any]) -> dict[str, Any]:
    """Return the image as a tensor, and a data sample with all else."""
    known = ('sample_idx', 'img_path', 'pairs', 'pair_set')
    sample = BaseDataElement(metainfo={key: entry[key] for key in known if key in entry})
    sample.set_field(torch.tensor([entry['gt_label']]), 'gt_label')
    return dict(
        inputs=torch.from_numpy(entry['img'].transpose(2, 0, 1).copy()), data_samples=sample
    )


BARE = FaceHost(Recogniser, packed, shrunk)


@pytest.mark.parametrize('case', FACES, ids=repr)
def test_a_part_of_a_recogniser_trains_tests_and_resumes(
    case: Case, faces_root: Path, tmp_path: Path
) -> None:
    with group_for(case):
        outcome = follow(HOST, face_setting(case, BARE, faces_root), tmp_path)
    assert_took_part(case, outcome, tmp_path)
