"""Losses that mmdet's heads recognise by their class, with and without mmdet."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.models.losses import QualityFocalLoss as StockQualityFocalLoss
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_ext.catalog.loss_cases.quality import labelled
from mmdet_ext.catalog.synthetic import random_boxes
from mmdet_ext.losses.quality import QualityFocalLoss as PlainQualityFocalLoss

REPO = Path(__file__).resolve().parents[2]
COSTS = [
    {'type': 'mmdet.FocalLossCost', 'weight': 2.0},
    {'type': 'mmdet.BBoxL1Cost', 'weight': 5.0, 'box_format': 'xywh'},
]


def detr_losses(scope: str, boxes: int) -> tuple[dict[str, Tensor], Tensor]:
    """Compute the losses of a DETR head on two images, and the gradient at the logits."""
    head = MODELS.build(
        ConfigDict(
            type='mmdet.DETRHead',
            num_classes=3,
            embed_dims=8,
            sync_cls_avg_factor=True,
            loss_cls={'type': f'{scope}.QualityFocalLoss', 'use_sigmoid': True, 'loss_weight': 2.0},
            loss_bbox={'type': 'mmdet.L1Loss', 'loss_weight': 5.0},
            loss_iou={'type': 'mmdet.GIoULoss', 'loss_weight': 2.0},
            train_cfg={'assigner': {'type': 'mmdet.HungarianAssigner', 'match_costs': COSTS}},
        )
    )
    generator = torch.Generator().manual_seed(0)
    truth = [
        InstanceData(
            bboxes=random_boxes(generator, count, 128, 128, 16, 80),
            labels=torch.randint(3, (count,), generator=generator),
        )
        for count in (boxes, 0)
    ]
    scores = torch.randn(2, 2, 10, 3, generator=generator).requires_grad_()
    places = torch.rand(2, 2, 10, 4, generator=generator)
    losses = head.loss_by_feat(scores, places, truth, [{'img_shape': (128, 128)}] * 2)
    sum(losses.values()).backward()
    return losses, scores.grad


@pytest.mark.parametrize('boxes', [3, 0])
def test_a_detr_head_gives_scores_as_to_mmdets_loss(boxes: int) -> None:
    expected, expected_gradient = detr_losses('mmdet', boxes)
    found, gradient = detr_losses('mmdet_ext', boxes)
    assert set(found) == set(expected) and expected['loss_cls'] > 0
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient, expected_gradient)


def test_it_computes_the_same_as_the_plain_loss() -> None:
    options: dict[str, Any] = {'beta': 1.5, 'loss_weight': 3.0, 'reduction': 'sum'}
    loss = MODELS.build({'type': 'mmdet_ext.QualityFocalLoss', **options})
    plain = PlainQualityFocalLoss(**options)
    assert isinstance(loss, StockQualityFocalLoss) and isinstance(loss, PlainQualityFocalLoss)
    assert set(loss.extra_repr().split(', ')) == set(plain.extra_repr().split(', '))
    pred, (label, score) = labelled(torch.Generator().manual_seed(0), 20)
    label[0] = -1  # background for mmdet's loss
    assert torch.equal(loss(pred, (label, score)), plain(pred, (label, score)))
    with pytest.raises(ValueError, match='beta must be 0 or at least 1, got 0.5'):
        MODELS.build({'type': 'mmdet_ext.QualityFocalLoss', 'beta': 0.5})
    with pytest.raises(TypeError, match="no option 'betta'; did you mean 'beta'"):
        MODELS.build({'type': 'mmdet_ext.QualityFocalLoss', 'betta': 1.0})


WITHOUT_MMDET = """
import json, sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] == 'mmdet':
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)
sys.meta_path.insert(0, Block())
import torch
from mmengine.registry import MODELS
loss = MODELS.build(dict(type='mmdet_ext.QualityFocalLoss', reduction='sum'))
value = loss(torch.zeros(1, 2), (torch.tensor([1]), torch.tensor([1.])))
print(json.dumps([type(loss).__module__, value.item()]))
"""


@pytest.mark.subprocess
def test_without_mmdet_the_plain_loss_is_built() -> None:
    env = {**os.environ, 'PYTHONPATH': str(REPO), 'OMP_NUM_THREADS': '1'}
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', WITHOUT_MMDET],
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        cwd='/',
    )
    assert done.returncode == 0, done.stderr[-3000:]
    module, value = json.loads(done.stdout.splitlines()[-1])
    # Twice log(2) / 4.
    assert module == 'mmdet_ext.losses.quality' and value == pytest.approx(0.3465736)
