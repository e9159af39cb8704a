"""Overlaps of boxes, compared with torchvision and with values by hand."""

from __future__ import annotations

import torch
from torchvision.ops import box_iou as torchvision_box_iou

from mmdet_ext.catalog.synthetic import random_boxes
from mmdet_ext.functional.boxes.overlap import box_centers, box_iou, pairwise_box_iof
from mmdet_ext.functional.numerics.precision import promote_half


def test_iou_equals_torchvisions_bit_by_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    boxes, others = random_boxes(generator, 60), random_boxes(generator, 40)
    ours = box_iou(boxes[:, None], others[None])
    assert torch.equal(ours, torchvision_box_iou(boxes, others))
    assert (ours > 0.1).sum() > 50


def test_iou_of_boxes_without_area_is_zero() -> None:
    point = torch.tensor([3.0, 3.0, 3.0, 3.0])
    inverted = torch.tensor([8.0, 8.0, 2.0, 2.0])
    for box in (point, inverted):
        assert box_iou(box, box).item() == 0
        assert box_iou(box, torch.tensor([0.0, 0.0, 9.0, 9.0])).item() == 0


def test_iof_by_hand() -> None:
    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 2.0, 2.0], [5.0, 5.0, 5.0, 5.0]])
    regions = torch.tensor([[0.0, 0.0, 2.0, 4.0], [9.0, 9.0, 10.0, 10.0]])
    expected = torch.tensor([[0.5, 0.0], [1.0, 0.0], [0.0, 0.0]])
    assert torch.equal(pairwise_box_iof(boxes, regions), expected)


def test_half_precision_is_promoted_before_areas_overflow() -> None:
    box = torch.tensor([0.0, 0.0, 600.0, 600.0], dtype=torch.float16)
    assert box_iou(box, box).item() == 1
    assert promote_half(box, box.bfloat16())[0].dtype == torch.float32
    assert torch.equal(box_centers(promote_half(box)[0]), torch.tensor([300.0, 300.0]))
