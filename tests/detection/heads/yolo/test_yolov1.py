"""YOLOV1Head: layout of its map, losses in px, detections, sizes that do not fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mmdet.models.utils import filter_scores_and_topk
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_ext.detection.heads.yolo.yolov1 import select_boxes
from mmdet_ext.functional.yolo.v1 import split_yolov1, yolov1_loss
from mmdet_ext.registry import MODELS

TEST = ConfigDict(score_thr=0.05, nms=dict(type='nms', iou_threshold=0.5), max_per_img=10)
META = dict(img_shape=(64, 128), batch_input_shape=(64, 128), scale_factor=(2.0, 0.5))


def head(**options: Any) -> Any:
    torch.manual_seed(0)
    usual = dict(
        type='mmdet_ext.YOLOV1Head',
        num_classes=3,
        in_channels=4,
        grid_size=2,
        fc_channels=8,
        test_cfg=TEST,
    )
    return MODELS.build({**usual, **options})


def truth(boxes: list[list[float]], labels: list[int]) -> InstanceData:
    return InstanceData(
        bboxes=torch.tensor(boxes).view(-1, 4).float(),
        labels=torch.tensor(labels, dtype=torch.long),
    )


def one_box_map() -> Tensor:
    """Return a map whose lower left cell holds one sure box of class 1, 32 x 16 px."""
    table = torch.zeros(1, 2, 2, 13)
    table[0, 1, 0, 5:10] = torch.tensor([0.5, 0.25, 0.5, -0.5, 0.8])
    table[0, 1, 0, 10:] = torch.tensor([-3.0, 1.5, 0.5])
    return table.permute(0, 3, 1, 2)


@pytest.mark.parametrize('fc_channels', [8, None])
def test_the_map_has_the_numbers_of_each_cell(fc_channels: int | None) -> None:
    model = head(fc_channels=fc_channels, boxes_per_cell=3).eval()
    x = torch.randn(2, 4, 2, 2)
    (pred_map,) = model((torch.zeros(1), x))
    assert pred_map.shape == (2, 3 * 5 + 3, 2, 2)
    moved = x.clone()
    moved[:, :, 0, 0] += 1
    changed = (model((moved,))[0] != pred_map).any(1)
    # Fully connected layers see the whole map, a convolution one cell.
    assert changed.sum() == (8 if fc_channels else 2)


def test_losses_are_means_over_images_of_the_sums_in_parts_of_the_input() -> None:
    model = head(lambda_coord=3.0, lambda_noobj=0.25)
    pred_map = torch.randn(2, 13, 2, 2, requires_grad=True)
    gts = [truth([[0, 0, 64, 32], [100, 40, 120, 60]], [2, 0]), truth([], [])]
    losses = model.loss_by_feat(pred_map, gts, [META, META])
    expected = yolov1_loss(
        split_yolov1(pred_map.permute(0, 2, 3, 1)),
        torch.tensor([[[0, 0, 0.5, 0.5], [100 / 128, 40 / 64, 120 / 128, 60 / 64]]]).repeat(
            2, 1, 1
        ),
        torch.tensor([[2, 0], [0, 0]]),
        torch.tensor([[True, True], [False, False]]),
        3.0,
        0.25,
    )
    assert list(losses) == ['loss_xy', 'loss_wh', 'loss_conf', 'loss_noobj', 'loss_cls']
    for value, term in zip(losses.values(), expected, strict=True):
        torch.testing.assert_close(value, term.mean())
    sum(losses.values()).backward()
    assert pred_map.grad is not None and pred_map.grad.isfinite().all()


def test_the_padded_size_of_the_batch_is_that_of_the_grid() -> None:
    model, pred_map = head(), one_box_map()
    small = {**META, 'img_shape': (40, 100)}
    one = model.predict_by_feat(pred_map, [META])[0].bboxes
    other = model.predict_by_feat(pred_map, [small])[0].bboxes
    assert one.tolist() == [[16, 32, 48, 48]] * 2
    assert other.tolist() == [[16, 32, 48, 40]] * 2  # clipped to its image


def test_scores_are_confidence_times_class_bounded_to_1() -> None:
    (found,) = head().predict_by_feat(one_box_map(), [META])
    # Classes -3, 1.5 and 0.5 count as 0, 1 and 0.5. Suppression is per class.
    assert found.labels.tolist() == [1, 2]
    torch.testing.assert_close(found.scores, torch.tensor([0.8, 0.4]))
    (found,) = head().predict_by_feat(one_box_map(), [META], rescale=True)
    assert found.bboxes[0].tolist() == [8, 64, 24, 96]
    cfg = ConfigDict(score_thr=0.5, nms=dict(type='nms', iou_threshold=0.5), max_per_img=10)
    (found,) = head().predict_by_feat(one_box_map(), [META], cfg=cfg)
    assert found.labels.tolist() == [1]


def test_two_negative_numbers_are_no_score() -> None:
    table = torch.full((1, 13, 2, 2), -2.0)
    (found,) = head().predict_by_feat(table, [META])
    assert len(found) == 0


def test_a_head_learns_an_image() -> None:
    model = head(fc_channels=None)
    features = torch.eye(4).view(1, 4, 2, 2)
    gts = [truth([[10, 4, 50, 28], [70, 36, 126, 60]], [0, 2])]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        total = sum(model.loss_by_feat(*model((features,)), gts, [META]).values())
        total.backward()
        optimizer.step()
    (found,) = model.predict_by_feat(*model((features,)), [META])
    found = found[found.scores > 0.5]
    assert sorted(found.labels.tolist()) == [0, 2]
    order = found.labels.argsort()
    torch.testing.assert_close(found.bboxes[order], gts[0].bboxes, rtol=0, atol=2.0)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(num_classes=0), 'num_classes must be at least 1, got 0'),
        (dict(grid_size=2.5), 'grid_size must be a whole number'),
        (dict(fc_channels=0), 'fc_channels must be at least 1, got 0'),
        (dict(dropout=1.0), r'dropout must be in \[0, 1\), got 1.0'),
        (dict(lambda_coord=-1), 'lambda_coord must be at least 0'),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        head(**options)


@pytest.mark.parametrize('fc_channels', [8, None])
def test_a_map_of_another_size_is_named_with_both_numbers(fc_channels: int | None) -> None:
    with pytest.raises(ValueError, match='grid_size=2 needs a map of 2 x 2, but got one of 3 x 2'):
        head(fc_channels=fc_channels)((torch.zeros(1, 4, 3, 2),))


def test_a_label_beyond_the_classes_is_named_with_both_numbers() -> None:
    with pytest.raises(ValueError, match=r'in \[0, 3\), as there are scores of 3 classes, got 3'):
        head().loss_by_feat(torch.zeros(1, 13, 2, 2), [truth([[0, 0, 9, 9]], [3])], [META])


def test_without_nms_pre_no_detection_is_lost() -> None:
    """The selection of mmdet takes -1, its heads' usual value, for all but the last."""
    scores = torch.tensor([[0.9], [0.5], [0.7]])
    assert filter_scores_and_topk(scores, 0.1, -1)[0].tolist() == pytest.approx([0.9, 0.7])
    boxes = torch.tensor([[0.0, 0, 9, 9], [20, 20, 40, 40], [60, 0, 90, 30]])
    found = select_boxes(head(), boxes, scores, META, None, False, True)
    assert found.scores.tolist() == pytest.approx([0.9, 0.7, 0.5])
    cfg = ConfigDict({**TEST, 'nms_pre': 2})
    assert len(select_boxes(head(), boxes, scores, META, cfg, False, True)) == 2
