"""Small YOLOv5 heads with their inputs; losses and detections by loops, one prior at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy
from torchvision.ops import complete_box_iou, nms

from mmdet_ext.catalog.synthetic import random_boxes
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
