"""Results stay on the device of their inputs: runs on pretended CUDA tensors, without a GPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from mmdet_ext.functional.assignment.assignment import Assignment
from mmdet_ext.functional.assignment.atss import atss_match
from mmdet_ext.functional.assignment.claims import ignored_priors_mask
from mmdet_ext.functional.assignment.geometry import BatchGeometry, Priors
from mmdet_ext.functional.assignment.grids import Grid
from mmdet_ext.functional.boxes.iou_losses import ciou_loss
from mmdet_ext.functional.pooling.fusion import normalized_fusion
from mmdet_ext.functional.pooling.warp import context_boxes
from mmdet_ext.functional.pooling.windows import window_cells
from mmdet_ext.functional.yolo.v1 import split_yolov1, yolov1_loss
from mmdet_ext.functional.yolo.v2 import passthrough, yolov2_loss

SIZES = (1600, 400)


@pytest.fixture(autouse=True)
def pretended_cuda() -> Iterator[None]:
    with FakeTensorMode():
        yield


def rand(*shape: int) -> Tensor:
    return torch.rand(*shape, device='cuda')


def full(shape: tuple[int, ...], value: bool | int) -> Tensor:
    return torch.full(shape, value, device='cuda')


@pytest.mark.parametrize('on_grid', [True, False])
@pytest.mark.parametrize('ignored', [True, False])
def test_atss(on_grid: bool, ignored: bool) -> None:
    priors = Priors(corners=rand(2000, 4), level_sizes=SIZES)
    # Pretended tensors have no values to find a grid from.
    vars(priors)['grids'] = [Grid(rand(n), rand(n)) if on_grid else None for n in (40, 20)]
    mask = full((2, 2000), False) if ignored else None
    boxes, valid = rand(2, 7, 4), full((2, 7), True)
    for count in (7, 0):
        geometry = BatchGeometry(priors, boxes[:, :count], full((2, count), 0), valid[:, :count])
        result = atss_match(geometry, ignore_mask=mask)
        assert result.gt_index.device.type == result.overlap.device.type == 'cuda'
        assert result.gt_index.shape == result.overlap.shape == (2, 2000)


def test_the_rest() -> None:
    boxes, valid = rand(2, 7, 4), full((2, 7), True)
    labels = full((7,), 0)
    geometry = BatchGeometry.from_lists(
        Priors(corners=rand(2000, 4), level_sizes=SIZES),
        [boxes[0], boxes[1, :3]],
        [labels, labels[:3]],
    )
    index, overlap = full((2, 2000), 0), rand(2, 2000)
    for tensor in (
        ciou_loss(boxes[0], boxes[1]),
        ignored_priors_mask(rand(2000, 4), boxes, valid, 0.5),
        geometry.gt_valid,
        Assignment(index, overlap).labels(geometry.gt_labels),
    ):
        assert tensor.device.type == 'cuda'


def test_yolo() -> None:
    boxes, labels, valid = rand(2, 7, 4), full((2, 7), 0), full((2, 7), True)
    index = full((2, 40), 0)
    for tensor in (
        passthrough(rand(2, 4, 6, 6)),
        *yolov1_loss(split_yolov1(rand(2, 5, 5, 13)), boxes, labels, valid),
        *yolov2_loss(rand(2, 40, 9), rand(40, 4), 16.0, index, boxes, labels),
    ):
        assert tensor.device.type == 'cuda'


def test_pooling() -> None:
    for tensor in (
        normalized_fusion([rand(2, 3, 4, 4), rand(2, 3, 4, 4)], rand(2)),
        context_boxes(rand(7, 4), 32, 8),
        window_cells(rand(7, 4), 16, 4, 4),
    ):
        assert tensor.device.type == 'cuda'
