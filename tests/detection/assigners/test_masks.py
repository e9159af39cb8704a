"""Ground truth with masks, in the form of heads (tensors) and of data sets (bitmaps, polygons)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from mmengine.structures import InstanceData

from mmdet_ext.detection.host import mask_centers
from mmdet_ext.registry import TASK_UTILS

HEIGHT, WIDTH = 64, 96
BOXES = torch.tensor([[4.0, 4.0, 40.0, 40.0], [30.0, 20.0, 90.0, 60.0]])


def pixels() -> np.ndarray:
    """Return the masks: the upper left quarter of the first box, all of the second."""
    masks = np.zeros((2, HEIGHT, WIDTH), np.uint8)
    masks[0, 4:22, 4:22] = 1
    masks[1, 20:60, 30:90] = 1
    return masks


def corners(x1: int, y1: int, x2: int, y2: int) -> list[np.ndarray]:
    return [np.array([x1, y1, x2, y1, x2, y2, x1, y2], np.float64)]


FORMS = {
    'tensor': lambda: torch.from_numpy(pixels()),
    'bitmaps': lambda: BitmapMasks(pixels(), HEIGHT, WIDTH),
    'polygons': lambda: PolygonMasks(
        [corners(4, 4, 22, 22), corners(30, 20, 90, 60)], HEIGHT, WIDTH
    ),
}


def instances(masks: Any = None) -> InstanceData:
    found = InstanceData(bboxes=BOXES, labels=torch.tensor([0, 1]))
    if masks is not None:
        found.masks = masks
    return found


def priors() -> InstanceData:
    y, x = torch.meshgrid(torch.arange(4, HEIGHT, 8), torch.arange(4, WIDTH, 8), indexing='ij')
    points = torch.stack([x.flatten(), y.flatten()], 1).float()
    boxes = torch.cat([points - 12, points + 12], 1)
    scores = torch.linspace(-2, 2, 2 * len(points)).view(-1, 2)
    rows = torch.cat([points, torch.full_like(points, 8)], 1)
    return InstanceData(priors=rows, bboxes=boxes, scores=scores)


@pytest.mark.parametrize('form', FORMS)
def test_centers_of_masks_by_hand(form: str) -> None:
    (found,) = mask_centers([instances(FORMS[form]())])
    # Pixels 4 to 21 and 4 to 21; 30 to 89 and 20 to 59.
    torch.testing.assert_close(found, torch.tensor([[12.5, 12.5], [59.5, 39.5]]))


@pytest.mark.parametrize('form', FORMS)
def test_the_soft_label_rule_uses_the_centers_of_masks(form: str) -> None:
    # With a radius of 0 the distance to the centre outweighs the overlap.
    options = dict(topk=5, soft_center_radius=0.0)
    assigner = TASK_UTILS.build(dict(type='mmdet_ext.DynamicSoftLabelAssigner', **options))
    found = assigner.assign(priors(), instances(FORMS[form]()))
    expected = assigner.assign(priors(), instances(FORMS['tensor']()))
    assert torch.equal(found.gt_inds, expected.gt_inds)
    assert not torch.equal(found.gt_inds, assigner.assign(priors(), instances()).gt_inds)


@pytest.mark.parametrize('form', FORMS)
def test_other_rules_do_not_look_at_masks(form: str) -> None:
    assigner = TASK_UTILS.build(
        dict(type='mmdet_ext.MaxIoUAssigner', pos_iou_thr=0.3, neg_iou_thr=0.3)
    )
    boxes = InstanceData(priors=priors().bboxes)
    found = assigner.assign(boxes, instances(FORMS[form]()))
    expected = assigner.assign(boxes, instances())
    assert torch.equal(found.gt_inds, expected.gt_inds) and (found.gt_inds > 0).any()
