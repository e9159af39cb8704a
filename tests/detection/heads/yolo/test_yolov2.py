"""YOLOV2Head: assignment, losses, the term of the priors, detections, sizes that do not fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_ext.catalog.synthetic import random_boxes
from mmdet_ext.functional.yolo.v2 import YOLOV2Scales, decode_yolov2, encode_yolov2, yolov2_loss
from mmdet_ext.registry import MODELS

HEIGHT, WIDTH, STRIDE = 64, 96, 16
ANCHORS = ((1.0, 0.5), (2.0, 3.0))
TEST = ConfigDict(score_thr=0.05, nms=dict(type='nms', iou_threshold=0.5), max_per_img=10)
META = dict(img_shape=(HEIGHT, WIDTH), batch_input_shape=(HEIGHT, WIDTH), scale_factor=(1.0, 1.0))


def head(**options: Any) -> Any:
    torch.manual_seed(0)
    usual = dict(
        type='mmdet_ext.YOLOV2Head',
        num_classes=3,
        in_channels=4,
        anchors=ANCHORS,
        stride=STRIDE,
        feat_channels=8,
        test_cfg=TEST,
    )
    return MODELS.build({**usual, **options})


def batch(*counts: int) -> list[InstanceData]:
    generator = torch.Generator().manual_seed(1)
    return [
        InstanceData(
            bboxes=random_boxes(generator, count, WIDTH, HEIGHT, 6, 50),
            labels=torch.randint(3, (count,), generator=generator),
        )
        for count in counts
    ]


def maps(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(count, 16, HEIGHT // STRIDE, WIDTH // STRIDE, generator=generator)


def slow_assignment(model: Any, pred_map: Tensor, gts: InstanceData) -> list[int]:
    """Assign the priors of an image, one by one: the best shape of the cell of the centre."""
    (priors,) = model.prior_generator.grid_priors([pred_map.shape[-2:]], device='cpu')
    rows = pred_map.view(2, 8, *pred_map.shape[-2:]).permute(2, 3, 0, 1).reshape(-1, 8)
    boxes = decode_yolov2(rows[:, :4], priors, STRIDE)
    columns = pred_map.shape[-1]
    index, fit = [-1] * len(priors), [0.0] * len(priors)
    for number, box in enumerate(gts.bboxes.tolist()):
        w, h = box[2] - box[0], box[3] - box[1]
        x, y = (box[0] + box[2]) / 2 // STRIDE, (box[1] + box[3]) / 2 // STRIDE
        if not (0 <= x < columns and 0 <= y < pred_map.shape[-2]):
            continue
        fits = []
        for aw, ah in ANCHORS:
            shared = min(w, aw * STRIDE) * min(h, ah * STRIDE)
            fits.append(shared / (w * h + aw * ah * STRIDE**2 - shared))
        place = int(y * columns + x) * 2 + fits.index(max(fits))
        if max(fits) > fit[place]:
            index[place], fit[place] = number, max(fits)
    for place, own in enumerate(index):
        for box in gts.bboxes:
            low = torch.maximum(boxes[place, :2], box[:2])
            shared = (torch.minimum(boxes[place, 2:], box[2:]) - low).clamp(min=0).prod()
            areas = [(each[2:] - each[:2]).prod() for each in (boxes[place], box)]
            if own == -1 and shared / (sum(areas) - shared) > 0.6:
                index[place] = -2
    return index


def test_losses_follow_from_the_best_anchor_of_the_cell_and_the_ignored_predictions() -> None:
    model = head(scales=dict(no_object=0.5)).eval()
    pred_map, gts = maps(3), batch(6, 0, 9)
    (priors,) = model.prior_generator.grid_priors([pred_map.shape[-2:]], device='cpu')
    # One prediction lies on a ground truth whose prior is another.
    target = encode_yolov2(gts[0].bboxes[0], priors[0], STRIDE)
    cell = next(c for c in range(24) if slow_assignment(model, pred_map[0], gts[0])[2 * c] == -1)
    own = priors[2 * cell]
    gts[0].bboxes[0] = torch.cat([own[:2], own[2:]]) + torch.tensor([0.0, -60.0, 0.0, 60.0])
    row, column = divmod(cell, WIDTH // STRIDE)
    target = encode_yolov2(gts[0].bboxes[0], own, STRIDE)
    pred_map[0, :4, row, column] = torch.cat([target[:2].logit(eps=1e-4), target[2:]])
    index = [slow_assignment(model, pred_map[i], gts[i]) for i in range(3)]
    assert -2 in index[0] and max(index[2]) > 3 and set(index[1]) == {-1}
    losses = model.loss_by_feat(pred_map, gts, [META] * 3)
    expected = torch.zeros(6)
    for image in range(3):
        rows = pred_map[image].view(2, 8, 4, 6).permute(2, 3, 0, 1).reshape(1, -1, 8)
        terms = yolov2_loss(
            rows,
            priors,
            STRIDE,
            torch.tensor(index[image])[None],
            gts[image].bboxes[None],
            gts[image].labels[None],
            YOLOV2Scales(no_object=0.5),
        )
        expected += torch.cat(terms) / 3
    names = ['loss_xy', 'loss_wh', 'loss_conf', 'loss_noobj', 'loss_cls', 'loss_prior']
    assert list(losses) == names
    torch.testing.assert_close(torch.stack(list(losses.values())), expected)


def test_the_term_of_the_priors_ends_after_its_samples() -> None:
    model = head(prior_samples=5)
    pred_map, gts = maps(2), batch(3, 2)
    found = [float(model.loss_by_feat(pred_map, gts, [META] * 2)['loss_prior']) for _ in range(4)]
    assert found[0] == found[1] == found[2] > 0 and found[3] == 0
    assert model.samples_seen == 8 and 'samples_seen' in model.state_dict()
    model.eval().loss_by_feat(pred_map, gts, [META] * 2)
    assert model.samples_seen == 8  # counted in training alone
    assert 'loss_prior' not in head(prior_samples=0).loss_by_feat(pred_map, gts, [META] * 2)


def test_another_assigner_may_be_taken() -> None:
    few = head()
    many = head(train_cfg=ConfigDict(assigner=dict(type='mmdet_ext.YOLOv4Assigner', iou_thr=0.05)))
    pred_map, gts = maps(2), batch(6, 6)
    losses = [model.loss_by_feat(pred_map, gts, [META] * 2)['loss_cls'] for model in (few, many)]
    assert losses[1] > losses[0] > 0


def test_images_without_boxes_learn_background_alone() -> None:
    losses = head().loss_by_feat(maps(2), batch(0, 0), [META] * 2)
    assert losses['loss_noobj'] > 0
    assert not any(losses[name] for name in ('loss_xy', 'loss_wh', 'loss_conf', 'loss_cls'))


def test_detections_are_the_boxes_of_the_formula() -> None:
    model = head()
    pred_map = torch.full((1, 16, 4, 6), -20.0)
    pred_map[0, 8:, 2, 3] = torch.tensor([0.0, 0.0, 0.0, -1.0, 20.0, 0.0, 3.0, 0.0])
    (found,) = model.predict_by_feat(pred_map, [META])
    # The second anchor, 2 x 3 cells, in the middle of the cell, with the height over e.
    half = torch.tensor([16.0, 24.0 * torch.tensor(-1.0).exp()])
    center = torch.tensor([3.5, 2.5]) * STRIDE
    expected = torch.cat([center - half, center + half])
    torch.testing.assert_close(found.bboxes[0], expected)
    assert found.labels[0] == 1
    torch.testing.assert_close(found.scores[0], torch.tensor([0.0, 3.0, 0.0]).softmax(0)[1])


def test_a_head_learns_an_image() -> None:
    model = head(feat_channels=0, in_channels=24)
    features = torch.eye(24).view(1, 24, 4, 6)  # one channel per cell
    gts = InstanceData(
        bboxes=torch.tensor([[10.0, 4.0, 50.0, 48.0], [60.0, 36.0, 80.0, 45.0]]),
        labels=torch.tensor([0, 2]),
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        sum(model.loss_by_feat(*model((features,)), [gts], [META]).values()).backward()
        optimizer.step()
    (found,) = model.predict_by_feat(*model((features,)), [META])
    found = found[found.scores > 0.5]
    assert sorted(found.labels.tolist()) == [0, 2]
    torch.testing.assert_close(found.bboxes[found.labels.argsort()], gts.bboxes, rtol=0, atol=2.0)


def test_boxes_are_clipped_to_their_image() -> None:
    pred_map = torch.zeros(1, 16, 4, 6)
    pred_map[0, [2, 3, 10, 11]] = 5.0
    (found,) = head().predict_by_feat(pred_map, [{**META, 'img_shape': (50, 70)}])
    assert found.bboxes[:, :2].min() == 0
    assert found.bboxes[:, 2].max() == 70 and found.bboxes[:, 3].max() == 50


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(anchors=()), 'anchors must be pairs'),
        (dict(anchors=((1.0, 0.0),)), 'anchors must be pairs of width and height in cells, above'),
        (dict(anchors=(1.0, 2.0)), 'anchors must be pairs'),
        (dict(stride=0), 'stride must be at least 1, got 0'),
        (dict(scales=dict(objects=1.0)), r"scales must be among coord, .*got \['objects'\]"),
        (
            dict(
                train_cfg=ConfigDict(
                    assigner=dict(type='mmdet.MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5)
                )
            ),
            'train_cfg.assigner must be an assigner of mmdet_ext',
        ),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        head(**options)


def test_images_that_do_not_fit_the_stride_are_named_with_both_sizes() -> None:
    meta = {**META, 'batch_input_shape': (60, 96)}
    message = 'a map of 4 x 6 cells .* covers images of 64 x 96 px, but the batch has 60 x 96 px'
    with pytest.raises(ValueError, match=message):
        head().predict_by_feat(maps(1), [meta])
    with pytest.raises(ValueError, match=message):
        head().loss_by_feat(maps(1), batch(1), [meta])


def test_a_label_beyond_the_classes_is_named_with_both_numbers() -> None:
    gts = batch(1)
    gts[0].labels += 3
    with pytest.raises(ValueError, match='as there are scores of 3 classes, got'):
        head().loss_by_feat(maps(1), gts, [META])
