"""Images of boxes that assigners find hard, and the kinds of priors that they are tried on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from mmdet_ext.catalog.synthetic import (
    anchors_as_priors,
    grid_centers,
    pyramid_anchors,
    random_boxes,
)
from mmdet_ext.functional.assignment.geometry import Priors

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

#: Kind of the priors of an assigner: one anchor per place, points with strides, the points of one
#: heatmap, or cells of three anchors each.
PriorKind = Literal['anchors', 'points', 'heatmap', 'cells']


def scene(
    case: int, most: int = 100, width: float = 320.0, height: float = 256.0
) -> tuple[Tensor, Tensor]:
    """Draw the boxes of image number ``case``: 0 to ``most`` boxes.

    Every tenth image has 0 to 3 boxes. Sides are usual, tiny, giant or alike. The boxes are left
    as they are, rounded to whole pixels, repeated three times, moved out of the image, crowded in
    a corner, rounded to half precision, or every third of them has no area.

    Returns:
        tuple: boxes (G, 4), px, and their labels (G,) below 7.
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
    """Return one point (x, y, stride, stride) per place, as mmdet's MlvlPointGenerator does.

    Returns:
        tuple: priors (P, 4), px, level by level, x running faster; number of priors per level.
    """
    levels = []
    for stride in strides:
        center = grid_centers(width, height, stride, offset)
        levels.append(torch.cat([center, torch.full_like(center, stride)], dim=1))
    return torch.cat(levels), [len(level) for level in levels]


def yolo_anchors(width: int = 320, height: int = 256) -> tuple[Tensor, list[int]]:
    """Return YOLOv3's anchors, three per cell, as mmdet's YOLOAnchorGenerator does.

    Returns:
        tuple: corners (P, 4), px, level by level, the anchors of a cell running fastest, then x;
        number of priors per level.
    """
    levels = []
    for stride, sides in YOLO_SIDES.items():
        center = grid_centers(width, height, stride, 0.5)[:, None]
        half = torch.tensor(sides) / 2
        levels.append(torch.cat([center - half, center + half], dim=2).view(-1, 4))
    return torch.cat(levels), [len(level) for level in levels]


def points_as_priors(rows: Tensor, level_sizes: Sequence[int] = ()) -> Priors:
    """Return rows (P, 4) of x, y and both strides as priors; () for unknown levels."""
    return Priors(points=rows[:, :2], strides=rows[:, 2:], level_sizes=tuple(level_sizes))


def cells_as_priors(corners: Tensor, level_sizes: Sequence[int]) -> Priors:
    """Return corners (P, 4) of three anchors per cell as priors."""
    anchors = tuple(3 for _ in level_sizes)
    return Priors(corners=corners, level_sizes=tuple(level_sizes), anchors_per_cell=anchors)


def priors_of_kind(
    kind: PriorKind, width: int = 320, height: int = 256, scale: float = 8.0
) -> Priors:
    """Return the priors of an image.

    Args:
        kind: see `PriorKind`.
        width: of the image, px.
        height: of the image, px.
        scale: side of the anchors of kind 'anchors', in strides.
    """
    if kind == 'anchors':
        return anchors_as_priors(*pyramid_anchors(width, height, scale=scale))
    if kind == 'cells':
        return cells_as_priors(*yolo_anchors(width, height))
    strides = (4,) if kind == 'heatmap' else (8, 16, 32, 64, 128)
    return points_as_priors(*pyramid_points(width, height, strides))


def boxes_about(priors: Priors, reach: float = 1.0) -> Tensor:
    """Return the anchors (P, 4), or boxes that reach ``reach`` strides to each side of points."""
    if priors.corners is not None:
        return priors.corners
    points, strides = priors.as_points()
    return torch.cat([points - reach * strides, points + reach * strides], 1)
