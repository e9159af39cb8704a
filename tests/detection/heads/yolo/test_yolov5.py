"""YOLOv5Head: losses by loops over boxes, anchors and cells; detections; options and input."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.logging import MMLogger
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy
from torchvision.ops import complete_box_iou, nms

from mmdet_ext.catalog.synthetic import random_boxes
from mmdet_ext.functional.yolo.v5 import encode_yolov5
from mmdet_ext.registry import MODELS

HEIGHT, WIDTH, CLASSES = 96, 128, 3
STRIDES = (8, 16, 32)
ANCHORS = [[(10, 13), (16, 30)], [(30, 61), (62, 45)], [(116, 90), (156, 198)]]
WEIGHTS = (4.0, 1.0, 0.4)
TEST = ConfigDict(
    score_thr=0.05, nms_pre=1000, nms=dict(type='nms', iou_threshold=0.5), max_per_img=50
)
META = dict(img_shape=(HEIGHT, WIDTH), batch_input_shape=(HEIGHT, WIDTH), scale_factor=(1.0, 1.0))


def head(**options: Any) -> Any:
    torch.manual_seed(0)
    usual = dict(
        type='mmdet_ext.YOLOv5Head',
        num_classes=CLASSES,
        in_channels=(4, 4, 4),
        anchors=ANCHORS,
        image_size=320,
        test_cfg=TEST,
    )
    return MODELS.build({**usual, **options})


def maps(images: int, classes: int = CLASSES, seed: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(
            images, 2 * (5 + classes), HEIGHT // stride, WIDTH // stride, generator=generator
        )
        for stride in STRIDES
    ]


def batch(*counts: int, classes: int = CLASSES, seed: int = 1) -> list[InstanceData]:
    generator = torch.Generator().manual_seed(seed)
    return [
        InstanceData(
            bboxes=random_boxes(generator, count, WIDTH, HEIGHT, 6, 90),
            labels=torch.randint(classes, (count,), generator=generator),
        )
        for count in counts
    ]


def sample(gts: InstanceData, shape: tuple[int, int] = (HEIGHT, WIDTH)) -> DetDataSample:
    none = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
    found = DetDataSample(gt_instances=gts, ignored_instances=none)
    found.set_metainfo({**META, 'img_shape': shape, 'batch_input_shape': shape})
    return found


def ratio(one: tuple[float, float], other: tuple[float, float]) -> float:
    return max(max(a / b, b / a) for a, b in zip(one, other, strict=True))


def claims(box: list[float], level: int) -> Iterator[tuple[int, int, int]]:
    """Yield anchor, row and column of the priors of a level that a box claims."""
    stride = STRIDES[level]
    rows, columns = HEIGHT // stride, WIDTH // stride
    x, y = (box[0] + box[2]) / 2 / stride, (box[1] + box[3]) / 2 / stride
    cells = [(int(y), int(x))]
    for dy, dx, near in (
        (0, -1, x % 1 < 0.5),
        (0, 1, x % 1 > 0.5),
        (-1, 0, y % 1 < 0.5),
        (1, 0, y % 1 > 0.5),
    ):
        if near:
            cells.append((int(y) + dy, int(x) + dx))
    for number, anchor in enumerate(ANCHORS[level]):
        if ratio((box[2] - box[0], box[3] - box[1]), anchor) < 4:
            for row, column in cells:
                if 0 <= row < rows and 0 <= column < columns:
                    yield number, row, column


def slow_losses(pred_maps: list[Tensor], gts: list[InstanceData], classes: int) -> Tensor:
    """Compute the losses of classes, boxes and objectness with loops, one prior at a time."""
    cls = box = obj = torch.zeros(())
    for level, pred_map in enumerate(pred_maps):
        stride, images = STRIDES[level], len(pred_map)
        table = pred_map.view(images, 2, 5 + classes, *pred_map.shape[-2:])
        target = torch.zeros(images, 2, *pred_map.shape[-2:])
        box_costs, cls_costs = [], []
        for image, own in enumerate(gts):
            best: dict[tuple[int, int, int], tuple[float, int]] = {}
            for index, corners in enumerate(own.bboxes.tolist()):
                sides = corners[2] - corners[0], corners[3] - corners[1]
                for place in claims(corners, level):
                    fit = ratio(sides, ANCHORS[level][place[0]])
                    if place not in best or fit < best[place][0]:
                        best[place] = fit, index
            for (number, row, column), (_, index) in best.items():
                raw = table[image, number, :, row, column]
                share = 2 * raw[:4].sigmoid()
                center = (torch.tensor([column, row]) + share[:2] - 0.5) * stride
                half = torch.tensor(ANCHORS[level][number]) * share[2:].square() / 2
                found = torch.cat([center - half, center + half])
                overlap = complete_box_iou(found[None], own.bboxes[index][None])[0, 0]
                box_costs.append(1 - overlap)
                target[image, number, row, column] = overlap.detach().clamp(min=0)
                wanted = torch.zeros(classes)
                wanted[own.labels[index]] = 1
                cls_costs.append(cross_entropy(raw[5:], wanted))
        if box_costs:
            box = box + torch.stack(box_costs).mean()
            cls = cls + torch.stack(cls_costs).mean()
        obj = obj + WEIGHTS[level] * cross_entropy(table[:, :, 4], target)
    images = len(pred_maps[0])
    factors = 0.5 * classes / 80 * (classes > 1), 0.05, (320 / 640) ** 2
    return images * torch.stack([f * v for f, v in zip(factors, (cls, box, obj), strict=True)])


@pytest.mark.parametrize('classes', [CLASSES, 1])
@pytest.mark.parametrize('counts', [(5, 0, 9), (0, 0), (1,)])
def test_losses_and_gradients_are_those_of_loops(counts: tuple[int, ...], classes: int) -> None:
    model = head(num_classes=classes)
    gts = batch(*counts, classes=classes)
    ours, theirs = ([each.requires_grad_() for each in maps(len(counts), classes)] for _ in '12')
    losses = model.loss_by_feat(ours, gts, [META] * len(counts))
    assert list(losses) == ['loss_cls', 'loss_bbox', 'loss_obj']
    expected = slow_losses(theirs, gts, classes)
    torch.testing.assert_close(torch.stack(list(losses.values())), expected, rtol=1e-5, atol=1e-6)
    sum(losses.values()).backward()
    expected.sum().backward()
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own.grad, other.grad, rtol=1e-4, atol=1e-7)


def test_losses_are_sums_over_the_images() -> None:
    model, pred_maps, gts = head(), maps(1), batch(6)
    one = model.loss_by_feat(pred_maps, gts, [META])
    twice = model.loss_by_feat([each.repeat(2, 1, 1, 1) for each in pred_maps], gts * 2, [META] * 2)
    for name, value in one.items():
        torch.testing.assert_close(twice[name], 2 * value)


def test_ignored_priors_do_not_count_in_the_objectness() -> None:
    # YOLOv3's rule ignores priors whose predicted box overlaps a ground truth.
    model = head(
        train_cfg=ConfigDict(assigner=dict(type='mmdet_ext.YOLOv3Assigner', ignore_iou_thr=0.2))
    )
    pred_maps, gts = maps(1), batch(1)
    (priors,) = (
        model.prior_generator.grid_priors([m.shape[-2:] for m in pred_maps], device='cpu'),
    )
    gts[0].bboxes = priors[1][20:21] + torch.tensor([[2.0, 1.0, 2.0, 1.0]])
    place = (20 % 2) * (5 + CLASSES), *divmod(20 // 2, WIDTH // 16)
    raw = encode_yolov5(gts[0].bboxes[0], priors[1][20], 16.0)
    other = priors[1][22]
    far = (22 % 2) * (5 + CLASSES), *divmod(22 // 2, WIDTH // 16)
    near = encode_yolov5(other, other, 16.0)
    for (first, row, column), values in ((place, raw), (far, near)):
        pred_maps[1][0, first : first + 4, row, column] = values
    changed = [each.clone() for each in pred_maps]
    changed[1][0, far[0] + 4, far[1], far[2]] += 5
    overlap = complete_box_iou(other[None], gts[0].bboxes).item()
    assert overlap > 0.2
    before, after = (
        model.loss_by_feat(each, gts, [META])['loss_obj'] for each in (pred_maps, changed)
    )
    torch.testing.assert_close(before, after)
    plain = head()
    assert (
        plain.loss_by_feat(changed, batch(0), [META])['loss_obj']
        > plain.loss_by_feat(pred_maps, batch(0), [META])['loss_obj']
    )


@pytest.mark.parametrize(
    'assigner',
    ['ATSSAssigner', 'FCOSAssigner', 'SimOTAAssigner', 'TaskAlignedAssigner', 'YOLOv4Assigner'],
)
def test_other_assigners_of_ours_train_it(assigner: str) -> None:
    options = dict(type=f'mmdet_ext.{assigner}')
    if assigner in ('ATSSAssigner', 'TaskAlignedAssigner'):
        options['topk'] = 9
    if assigner == 'FCOSAssigner':
        options['regress_ranges'] = [(-1, 32), (32, 64), (64, 1e8)]
    model = head(train_cfg=ConfigDict(assigner=options))
    pred_maps = [each.requires_grad_() for each in maps(2)]
    losses = model.loss_by_feat(pred_maps, batch(4, 3), [META] * 2)
    assert all(value.isfinite() for value in losses.values()) and losses['loss_bbox'] > 0
    sum(losses.values()).backward()
    assert all(each.grad is not None and each.grad.isfinite().all() for each in pred_maps)


def slow_detections(
    pred_maps: list[Tensor], image: int, score_thr: float
) -> list[tuple[float, int, list[float]]]:
    """Return score, label and box of the detections of an image, without bounds on their number."""
    boxes, scores = [], []
    for level, pred_map in enumerate(pred_maps):
        table = pred_map[image].view(2, 5 + CLASSES, *pred_map.shape[-2:])
        for number, (width, height) in enumerate(ANCHORS[level]):
            for row in range(table.shape[2]):
                for column in range(table.shape[3]):
                    s = table[number, :, row, column].sigmoid().tolist()
                    x = STRIDES[level] * (column + 2 * s[0] - 0.5)
                    y = STRIDES[level] * (row + 2 * s[1] - 0.5)
                    w, h = width * 4 * s[2] ** 2 / 2, height * 4 * s[3] ** 2 / 2
                    boxes.append([x - w, y - h, x + w, y + h])
                    scores.append([s[4] * each for each in s[5:]])
    table, found = torch.tensor(boxes), []
    for label in range(CLASSES):
        own = torch.tensor([each[label] for each in scores])
        kept = (own > score_thr).nonzero()[:, 0]
        for place in kept[nms(table[kept], own[kept], TEST.nms.iou_threshold)].tolist():
            x1, y1, x2, y2 = boxes[place]
            clipped = [max(x1, 0), max(y1, 0), min(x2, WIDTH), min(y2, HEIGHT)]
            found.append((float(own[place]), label, clipped))
    return sorted(found, reverse=True)


def test_detections_are_those_of_loops() -> None:
    every = ConfigDict({**TEST, 'nms_pre': -1, 'max_per_img': 5000, 'score_thr': 0.4})
    model, pred_maps = head(test_cfg=every), maps(2)
    for image, found in enumerate(model.predict_by_feat(pred_maps, [META] * 2)):
        expected = slow_detections(pred_maps, image, 0.4)
        assert len(found) == len(expected) > 30
        torch.testing.assert_close(found.scores, torch.tensor([each[0] for each in expected]))
        assert found.labels.tolist() == [each[1] for each in expected]
        torch.testing.assert_close(found.bboxes, torch.tensor([each[2] for each in expected]))


def test_a_prior_may_be_left_its_best_class_alone() -> None:
    pred_maps = [torch.full_like(each, -9.0) for each in maps(1)]
    pred_maps[1][0, 4:8, 2, 3] = torch.tensor([9.0, 1.0, 3.0, 3.0])
    many = head().predict_by_feat(pred_maps, [META])[0]
    assert many.labels.tolist() == [1, 2, 0]
    cfg = ConfigDict({**TEST, 'multi_label': False})
    (one,) = head().predict_by_feat(pred_maps, [META], cfg=cfg)
    assert one.labels.tolist() == [1]
    torch.testing.assert_close(one.scores, many.scores[:1])


def test_boxes_of_the_image_before_its_resize_are_clipped_to_it() -> None:
    pred_maps = [torch.full_like(each, -9.0) for each in maps(1)]
    pred_maps[2][0, :8, 0, 0] = torch.tensor([0.0, 0.0, 9.0, 9.0, 9.0, 9.0, 9.0, -9.0])
    meta = {**META, 'img_shape': (90, 120), 'scale_factor': (2.0, 0.5)}
    found = head().predict_by_feat(pred_maps, [meta], rescale=True)[0]
    assert found.bboxes[0].tolist() == [0, 0, 60, 180]


def test_exact_predictions_are_found_again() -> None:
    model, gts = head(), batch(4, seed=5)
    pred_maps = [torch.full_like(each, -12.0) for each in maps(1)]
    levels = model.prior_generator.grid_priors([m.shape[-2:] for m in pred_maps], device='cpu')
    for box, label in zip(gts[0].bboxes, gts[0].labels, strict=True):
        fits = [
            (ratio((box[2:] - box[:2]).tolist(), anchor), level, place)
            for level in range(3)
            for place, anchor in enumerate(ANCHORS[level])
        ]
        _, level, number = min(fits)
        stride = STRIDES[level]
        column, row = ((box[:2] + box[2:]) / 2 / stride).long().tolist()
        prior = levels[level][(row * (WIDTH // stride) + column) * 2 + number]
        first = number * (5 + CLASSES)
        own = pred_maps[level][0, :, row, column]
        own[first : first + 4] = encode_yolov5(box, prior, stride)
        own[first + 4], own[first + 5 + label] = 9.0, 9.0
    (found,) = model.predict_by_feat(pred_maps, [META])
    inside = torch.minimum(gts[0].bboxes.clamp(min=0), torch.tensor([WIDTH, HEIGHT] * 2))
    order, wanted = found.bboxes.sum(1).argsort(), inside.sum(1).argsort()
    torch.testing.assert_close(found.bboxes[order], inside[wanted], rtol=0, atol=1e-3)
    assert torch.equal(found.labels[order], gts[0].labels[wanted])


def test_a_head_learns_an_image() -> None:
    model = head(in_channels=(2, 2, 48))
    features = [torch.zeros(1, 2, 12, 16), torch.zeros(1, 2, 6, 8), torch.zeros(1, 48, 3, 4)]
    features[2][0, :12] = torch.eye(12).view(12, 3, 4)  # one channel per cell
    gts = InstanceData(
        bboxes=torch.tensor([[4.0, 4.0, 60.0, 60.0], [50.0, 10.0, 126.0, 80.0]]),
        labels=torch.tensor([0, 2]),
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        sum(model.loss_by_feat(*model(features), [gts], [META]).values()).backward()
        optimizer.step()
    (found,) = model.predict_by_feat(*model(features), [META])
    found = found[:2]
    assert sorted(found.labels.tolist()) == [0, 2] and found.scores.min() > 0.3
    torch.testing.assert_close(found.bboxes[found.labels.argsort()], gts.bboxes, rtol=0, atol=3.0)


def test_first_biases_expect_few_objects() -> None:
    model = head(num_classes=20)
    for layer, stride in zip(model.convs_pred, STRIDES, strict=True):
        rows = layer.bias.view(2, 25)
        assert rows[:, 4].tolist() == pytest.approx([math.log(8 * stride**2 / 640**2)] * 2)
        torch.testing.assert_close(rows[:, 5:].exp(), torch.full((2, 20), 0.6 / 19.00001))


def test_export_gets_the_levels_of_what_is_predicted() -> None:
    model, pred_maps = head(), maps(2)
    levels = model.decode_for_export(pred_maps)
    boxes, scores = model.decoded(pred_maps)
    assert [level.boxes.shape[1] for level in levels] == [2 * 192, 2 * 48, 2 * 12]
    assert torch.equal(torch.cat([level.boxes for level in levels], 1), boxes)
    assert torch.equal(torch.cat([level.scores for level in levels], 1), scores)


class Lines(logging.Handler):
    """Handler that keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append((record.levelno, record.getMessage()))


@pytest.fixture
def lines() -> Iterator[list[tuple[int, str]]]:
    logger = MMLogger.get_instance('anchors', log_level='INFO')
    handler = Lines()
    logger.addHandler(handler)
    yield handler.found
    logger.removeHandler(handler)


def test_the_log_says_how_many_boxes_have_an_anchor(lines: list[tuple[int, str]]) -> None:
    model, pred_maps = head(anchor_boxes=6), maps(1)
    tiny = InstanceData(
        bboxes=torch.tensor([[4.0, 4.0, 6.0, 6.0], [9.0, 9.0, 9.0, 20.0], [0.0, 0.0, 30.0, 40.0]]),
        labels=torch.zeros(3, dtype=torch.long),
    )
    model.eval().loss_by_feat(pred_maps, [tiny], [META])
    model.train()
    for _ in range(4):
        with pytest.warns(UserWarning, match='without area'):
            model.loss_by_feat(pred_maps, [tiny], [META])
    # Of the two boxes with area in each image, one has anchors: 6 boxes after three images.
    ((level, text),) = [line for line in lines if 'Anchors' in line[1]]
    assert level == logging.WARNING
    assert text.startswith('Anchors: 50.0% of the first 6 boxes have one') and 'anchors.py' in text
    assert model.watch.found.recall == 0.5
    good = head(anchor_boxes=1)
    good.loss_by_feat(pred_maps, [tiny[2:]], [META])
    level, text = [line for line in lines if 'Anchors' in line[1]][-1]
    assert level == logging.INFO and '100.0% of the first 1 boxes' in text
    head(anchor_boxes=0).loss_by_feat(pred_maps, [tiny[2:]], [META])
    assert sum('Anchors' in text for _, text in lines) == 2


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(num_classes=0), 'num_classes must be at least 1'),
        (
            dict(in_channels=(4, 4)),
            r'in_channels must be one entry per level, .* has 3, got \(4, 4\)',
        ),
        (dict(anchors=ANCHORS[:2]), 'anchors must be one entry per level'),
        (dict(anchors=[[(8, 0)]] * 3), 'anchors must be pairs of width and height in px, above 0'),
        (dict(anchors=[[], [(1, 1)], [(1, 1)]]), 'anchors must be pairs'),
        (dict(level_weights=(1.0, -1.0, 1.0)), 'level_weights must be at least 0'),
        (dict(strides=(8, 0, 32)), 'strides must be at least 1'),
        (dict(image_size=0), 'image_size must be above 0'),
        (dict(anchor_boxes=-1), 'anchor_boxes must be a whole number from 0 on'),
        (
            dict(loss_cls=dict(type='mmdet_ext.CrossEntropyLoss')),
            'loss_cls must be a loss over sigmoids, got .a softmax loss',
        ),
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


def features(channels: int = 4) -> list[Tensor]:
    return [torch.zeros(1, channels, HEIGHT // stride, WIDTH // stride) for stride in STRIDES]


def test_input_that_does_not_fit_is_named_with_both_numbers() -> None:
    model = head()
    with pytest.raises(ValueError, match='YOLOv5Head has 3 levels, .* of 2 levels'):
        model(features()[:2])
    with pytest.raises(
        ValueError, match=r'has in_channels=\[4, 4, 4\], but got maps of \[6, 6, 6\]'
    ):
        model(features(6))
    with pytest.raises(ValueError, match=r'stride \(8, 8\) in level 0, which makes 24 x 32 cells'):
        model.loss(features(), [sample(batch(2)[0], (2 * HEIGHT, 2 * WIDTH))])
    with pytest.raises(ValueError, match=r'stride \(8, 8\) in level 0, which makes 24 x 32 cells'):
        model.predict(features(), [sample(batch(2)[0], (2 * HEIGHT, 2 * WIDTH))])
    gts = batch(2)[0]
    gts.labels[1] = 7
    message = 'num_classes=3, but the ground truth has the label 7, so that .* at least 8 classes'
    with pytest.raises(ValueError, match=message):
        model.loss(features(), [sample(gts)])
    gts.labels[1], gts.bboxes[0, 2] = 0, math.nan
    with pytest.raises(ValueError, match='must be finite, got 1'):
        model.loss(features(), [sample(gts)])


def test_half_precision_is_computed_in_float32() -> None:
    model, gts = head(), batch(4)
    pred_maps = [each * 3 for each in maps(1)]
    wanted = model.loss_by_feat([each.half().float() for each in pred_maps], gts, [META])
    found = model.loss_by_feat([each.half() for each in pred_maps], gts, [META])
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value)
