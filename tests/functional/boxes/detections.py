"""Detections with duplicates, and the IoU of two of them in float64."""

from __future__ import annotations

import torch
from torch import Tensor

from mmdet_ext.catalog.synthetic import random_boxes

SQUARE = [0.0, 0.0, 4.0, 4.0]


def detections(
    seed: int, count: int, classes: int = 4, width: float = 320.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw boxes on quarters of a pixel, half of them near another one of their class."""
    generator = torch.Generator().manual_seed(seed)
    boxes = random_boxes(generator, count, width, 256.0, 8.0, 120.0)
    labels = torch.randint(classes, (count,), generator=generator)
    half = count // 2
    near = torch.randint(count, (half,), generator=generator)
    boxes[:half] = boxes[near] + 6 * torch.rand(half, 4, generator=generator)
    labels[:half] = labels[near]
    boxes = (boxes * 4).round() / 4
    return boxes, torch.rand(count, generator=generator), labels


def iou(a: list[float], b: list[float]) -> float:
    """Compute an IoU in float64."""
    sides = [min(a[k + 2], b[k + 2]) - max(a[k], b[k]) for k in (0, 1)]
    shared = max(sides[0], 0.0) * max(sides[1], 0.0)
    union = sum((x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)) - shared
    return shared / union if union > 0 else 0.0
