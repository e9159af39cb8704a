"""Small YOLOv3 heads, and their losses by loops over priors."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from mmdet_ext.functional.boxes.iou_losses import ciou_loss
from mmdet_ext.functional.boxes.overlap import box_iou

CLASSES = 3
WIDTH, HEIGHT = 48, 32
STRIDES = (16, 8)
SIDES = [[(30, 20), (20, 34)], [(8, 10), (14, 9)]]
BCE = dict(type='CrossEntropyLoss', use_sigmoid=True, reduction='sum')
SQUARED = dict(type='MSELoss', reduction='sum')
CIOU = dict(type='mmdet_ext.CIoULoss', reduction='sum')
SUMS = dict(loss_cls=BCE, loss_conf=BCE, loss_xy=BCE, loss_wh=SQUARED)
META = dict(img_shape=(HEIGHT, WIDTH), batch_input_shape=(HEIGHT, WIDTH))


def build(scope: str = 'mmdet_ext', **options: Any) -> Any:
    """Build a small head of two levels, whose losses are sums."""
    rule = options.pop('assigner', dict(type='mmdet_ext.YOLOv3Assigner', ignore_iou_thr=0.3))
    usual: dict[str, Any] = dict(
        num_classes=CLASSES,
        in_channels=[4, 4],
        out_channels=[4, 4],
        anchor_generator=dict(type='YOLOAnchorGenerator', strides=list(STRIDES), base_sizes=SIDES),
        featmap_strides=list(STRIDES),
        train_cfg=ConfigDict(assigner=rule),
    )
    torch.manual_seed(0)
    return MODELS.build(dict(type=f'{scope}.YOLOV3Head', **{**usual, **SUMS, **options}))


def maps(images: int = 3, scale: float = 1.0, seed: int = 0) -> list[Tensor]:
    """Make raw predictions of both levels."""
    generator = torch.Generator().manual_seed(seed)
    shape = (images, 2 * (5 + CLASSES))
    return [
        (scale * torch.randn(*shape, HEIGHT // s, WIDTH // s, generator=generator)).requires_grad_()
        for s in STRIDES
    ]


def truth(*boxes: list[list[float]]) -> list[InstanceData]:
    """Make the ground truth of some images; labels count up."""
    return [
        InstanceData(
            bboxes=torch.tensor(each).reshape(-1, 4), labels=torch.arange(len(each)) % CLASSES
        )
        for each in boxes
    ]


GTS = truth(
    [[2, 3, 29, 25], [20, 10, 29, 19], [21, 9, 31, 20], [30, 1, 47, 31]],
    [],
    [[1, 1, 9, 11], [17, 5, 37, 30]],
)


def total(losses: dict[str, Any]) -> dict[str, Tensor]:
    return {name: sum(parts) for name, parts in losses.items()}


def predicted_box(
    row: Tensor, anchor: tuple[int, int], cell: tuple[int, int], place: Any
) -> Tensor:
    stride, scale = place
    shares = row[:2].sigmoid() * scale - (scale - 1) / 2
    center = (torch.tensor(cell) + shares) * stride
    half = torch.tensor(anchor) * row[2:4].exp() / 2
    return torch.cat([center - half, center + half])


def concentric(sides: Tensor, anchor: tuple[int, int]) -> float:
    width, height = sides.tolist()
    shared = min(width, anchor[0]) * min(height, anchor[1])
    return shared / (width * height + anchor[0] * anchor[1] - shared)


def owners(boxes: Tensor, iou_thr: float | None) -> dict[Any, int]:
    """Assign boxes to priors (level, anchor, row, column) by loops: the best shape, and more."""
    claims: dict[Any, tuple[float, int]] = {}
    for number, box in enumerate(boxes):
        x, y = ((box[:2] + box[2:]) / 2).tolist()
        fits = {
            (level, anchor, int(y // stride), int(x // stride)): concentric(
                box[2:] - box[:2], SIDES[level][anchor]
            )
            for level, stride in enumerate(STRIDES)
            for anchor in range(2)
        }
        best = max(fits, key=lambda prior: fits[prior])
        for prior, fit in fits.items():
            wanted = prior == best or (iou_thr is not None and fit > iou_thr)
            if wanted and fit > claims.get(prior, (0.0, 0))[0]:
                claims[prior] = (fit, number)
    return {prior: number for prior, (_, number) in claims.items()}


def compare(kind: str, logit: Tensor, target: Tensor) -> Tensor:
    if kind == 'squared':
        return ((logit.sigmoid() - target) ** 2).sum()
    return binary_cross_entropy_with_logits(logit, target, reduction='sum')


def slow_losses(pred: list[Tensor], gts: list[InstanceData], **given: Any) -> dict[str, Tensor]:
    """Compute the losses prior by prior, in the precision of the predictions."""
    kinds = dict(xy='bce', conf='bce', cls='bce', box='offsets', smooth=0.0, iou_thr=None)
    kinds.update(lambda_noobj=1.0, size_weight=False, scales=(1.0, 1.0))
    kinds.update(given)
    zero = sum(each.sum() * 0 for each in pred)
    names = ['cls', 'conf', 'xy', 'wh'] if kinds['box'] == 'offsets' else ['cls', 'conf', 'bbox']
    losses: dict[str, Any] = {f'loss_{name}': zero for name in names}
    for image, gt in enumerate(gts):
        boxes = gt.bboxes.to(pred[0].dtype)
        has = owners(boxes, kinds['iou_thr'])
        for level, stride in enumerate(STRIDES):
            rows, columns = pred[level].shape[-2:]
            for anchor, y, x in itertools.product(range(2), range(rows), range(columns)):
                row = pred[level][image].unflatten(0, (2, -1))[anchor, :, y, x]
                scale, sides = kinds['scales'][level], SIDES[level][anchor]
                box = predicted_box(row, sides, (x, y), (stride, scale))
                number = has.get((level, anchor, y, x))
                if number is None:
                    if len(boxes) and box_iou(box, boxes).max() > 0.3:
                        continue
                    objectness = compare(kinds['conf'], row[4], row.new_zeros(()))
                    losses['loss_conf'] = losses['loss_conf'] + kinds['lambda_noobj'] * objectness
                    continue
                own = (boxes[number], int(gt.labels[number]))
                for name, loss in _of_positive(row, own, sides, (x, y), stride, scale, kinds):
                    losses[name] = losses[name] + loss
    return losses


def _of_positive(
    row: Tensor,
    own: tuple[Tensor, int],
    anchor: tuple[int, int],
    cell: tuple[int, int],
    stride: int,
    scale: float,
    kinds: dict[str, Any],
) -> Any:
    box, label = own
    yield 'loss_conf', compare(kinds['conf'], row[4], row.new_ones(()))
    if kinds['cls'] == 'softmax':
        yield 'loss_cls', cross_entropy(row[5:], torch.tensor(label))
    else:
        goal = torch.full((CLASSES,), kinds['smooth'] / CLASSES, dtype=row.dtype)
        goal[label] += 1 - kinds['smooth']
        yield 'loss_cls', compare(kinds['cls'], row[5:], goal)
    sides = box[2:] - box[:2]
    weight = 1.0
    if kinds['size_weight']:
        weight = 2 - float(sides[0] / WIDTH * sides[1] / HEIGHT)
    if kinds['box'] == 'offsets':
        share = (box[:2] + box[2:]) / 2 / stride - torch.tensor(cell)
        share = ((share + (scale - 1) / 2) / scale).clamp(1e-6, 1 - 1e-6)
        yield 'loss_xy', weight * compare(kinds['xy'], row[:2], share)
        logs = (sides / torch.tensor(anchor)).log()
        yield 'loss_wh', weight * ((row[2:4] - logs) ** 2).sum()
    else:
        found = predicted_box(row, anchor, cell, (stride, scale))
        yield 'loss_bbox', weight * ciou_loss(found, box)
