"""Pictures that assigners stumble over, and priors as points and as several anchors a cell."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmdet_ext.catalog.synthetic import grid_centers, random_boxes

#: The kinds of `scene`, in turn.
SCENE_KINDS = (
    'usual',
    'whole pixels',
    'identical',
    'outside',
    'crowded',
    'half precision',
    'without area',
)

#: Shortest and longest sides of `scene`, in turn, px: usual, tiny, giant, alike.
SCENE_SIDES = ((4, 200), (1, 8), (150, 900), (20, 30))

#: YOLOv3's anchors, by stride, (width, height) px.
YOLO_SIDES = {
    32: ((116, 90), (156, 198), (373, 326)),
    16: ((30, 61), (62, 45), (59, 119)),
    8: ((10, 13), (16, 30), (33, 23)),
}


def scene(
    case: int, most: int = 100, width: float = 320.0, height: float = 256.0
) -> tuple[Tensor, Tensor]:
    """Picture number ``case``: 0 to ``most`` boxes (G, 4), px, and their labels (G,) below 7.

    Every tenth picture has 0 to 3 boxes. Sides are tiny, giant, alike or usual; the boxes as
    they are, on whole pixels, each three times, moved out of the picture, crowded in a corner,
    rounded to half precision, or every third of them without area.
    """
    generator = torch.Generator().manual_seed(case)
    count = int(torch.randint(most + 1, (), generator=generator)) if case % 10 else case // 10 % 4
    low, high = SCENE_SIDES[case % len(SCENE_SIDES)]
    boxes = random_boxes(generator, count, width, height, low, high)
    kind = SCENE_KINDS[case % len(SCENE_KINDS)]
    if kind == 'whole pixels':
        boxes = boxes.round()
    elif kind == 'identical':
        boxes = boxes[torch.arange(count) // 3]
    elif kind == 'outside':
        away = torch.rand(count, 1, generator=generator).round() * torch.tensor([400.0, -300.0])
        boxes = boxes + away.repeat(1, 2)
    elif kind == 'crowded':
        boxes = boxes * 0.2 + 100
    elif kind == 'half precision':
        boxes = boxes.half()
    elif kind == 'without area':
        boxes = torch.where((torch.arange(count) % 3 == 0)[:, None], boxes[:, [0, 1, 0, 3]], boxes)
    return boxes, torch.randint(7, (count,), generator=generator)


def pyramid_points(
    width: int = 320,
    height: int = 256,
    strides: Sequence[int] = (8, 16, 32, 64, 128),
    offset: float = 0.5,
) -> tuple[Tensor, list[int]]:
    """One point (x, y, stride, stride) a place, as stock's MlvlPointGenerator gives them.

    Returns:
        tuple: priors (P, 4), px, level by level, x running faster; priors of each level.
    """
    levels = []
    for stride in strides:
        center = grid_centers(width, height, stride, offset)
        levels.append(torch.cat([center, torch.full_like(center, stride)], dim=1))
    return torch.cat(levels), [len(level) for level in levels]


def yolo_anchors(width: int = 320, height: int = 256) -> tuple[Tensor, list[int]]:
    """YOLOv3's anchors, three a cell, as stock's YOLOAnchorGenerator gives them.

    Returns:
        tuple: priors (P, 4), corners, px, level by level, the anchors of a cell running fastest,
        then x; priors of each level.
    """
    levels = []
    for stride, sides in YOLO_SIDES.items():
        center = grid_centers(width, height, stride, 0.5)[:, None]
        half = torch.tensor(sides) / 2
        levels.append(torch.cat([center - half, center + half], dim=2).view(-1, 4))
    return torch.cat(levels), [len(level) for level in levels]
