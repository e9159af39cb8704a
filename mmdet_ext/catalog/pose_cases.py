"""Cases of the contract table for poses."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmdet_ext.catalog.case import Case

#: Joints, limbs between them, and the sides of an input and of a map, of the inputs below.
JOINTS, INPUT, MAP = 5, 32, 8
LIMBS = ((0, 1), (1, 2), (1, 3), (3, 4))
#: The mirror joint of each.
FLIP = (0, 1, 2, 3, 4)
IMAGES = 3


def heatmap_inputs(generator: torch.Generator, people: int) -> tuple[Any, ...]:
    """Make heatmaps, their targets with ``people`` peaks each, weights and a mask."""
    shape = (IMAGES, JOINTS, MAP, MAP)
    target = torch.zeros(shape)
    for _ in range(people):
        cell = torch.randint(MAP * MAP, (IMAGES, JOINTS, 1), generator=generator)
        target.view(IMAGES, JOINTS, -1).scatter_(2, cell, 1.0)
    weights = torch.rand(shape[:2], generator=generator)
    mask = torch.rand((IMAGES, 1, MAP, MAP), generator=generator) > 0.2
    return torch.randn(shape, generator=generator), target, weights, mask


def tag_inputs(
    generator: torch.Generator, people: int, dimensions: int = 1
) -> tuple[Tensor, list[Tensor]]:
    """Make maps of tags, and the indices of 0 to ``people`` people in each image."""
    tags = torch.randn(IMAGES, dimensions * JOINTS, MAP, MAP, generator=generator)
    indices = []
    for image in range(IMAGES):
        shape = (max(people - image, 0), JOINTS)
        cell = torch.randint(MAP * MAP, shape, generator=generator)
        shown = torch.randint(2, shape, generator=generator)
        indices.append(torch.stack([cell, shown], -1))
    return tags, indices


def _wide_tag_inputs(generator: torch.Generator, people: int) -> tuple[Tensor, list[Tensor]]:
    return tag_inputs(generator, people, 3)


def _both_inputs(generator: torch.Generator, people: int) -> tuple[Any, ...]:
    output, target, _, _ = heatmap_inputs(generator, people)
    return output, target, *tag_inputs(generator, people)


def _field_inputs(generator: torch.Generator, people: int) -> tuple[Any, ...]:
    output, target, _, mask = heatmap_inputs(generator, people)
    shape = (IMAGES, 2 * len(LIMBS), MAP, MAP)
    fields = torch.randn(shape, generator=generator)
    angle = 7 * torch.rand(IMAGES, len(LIMBS), generator=generator)
    unit = torch.stack([angle.cos(), angle.sin()], 2).flatten(1)
    on = torch.rand(IMAGES, 1, MAP, MAP, generator=generator) > (0.7 if people else 1.0)
    return output, fields, target, unit[..., None, None] * on, mask


def _tag_maps(codec: Any, encoded: dict[str, Any]) -> tuple[Tensor, ...]:
    """Return maps with the tag n at the joints of person n."""
    heatmaps = torch.as_tensor(encoded['heatmaps'])
    tags = torch.zeros_like(heatmaps).flatten(1)
    for person, joints in enumerate(encoded['keypoint_indices']):
        for joint, (cell, shown) in enumerate(joints):
            if shown:
                tags[joint, cell] = 10.0 * person
    return heatmaps[None], tags.view_as(heatmaps)[None]


def _field_maps(codec: Any, encoded: dict[str, Any]) -> tuple[Tensor, ...]:
    """Return the targets themselves."""
    return tuple(torch.as_tensor(encoded[name])[None] for name in ('heatmaps', 'limb_fields'))


_SIZES = {'input_size': (INPUT, INPUT), 'heatmap_size': (MAP, MAP), 'sigma': 1}

CASES = (
    Case('keypoint loss', 'KeypointHeatmapLoss', inputs=heatmap_inputs),
    Case(
        'keypoint loss',
        'KeypointHeatmapLoss',
        {'hard_keypoints': 2, 'positive_threshold': 0.5, 'positive_weight': 4.0},
        inputs=heatmap_inputs,
    ),
    Case('keypoint loss', 'AssociativeEmbeddingLoss', twin='mmpose', inputs=tag_inputs),
    Case(
        'keypoint loss',
        'AssociativeEmbeddingLoss',
        {'normalization': 'paper', 'sigma': 2.0, 'loss_weight': 0.1},
        twin='mmpose',
        inputs=_wide_tag_inputs,
    ),
    Case(
        'keypoint loss',
        'AssociativeEmbeddingLoss',
        {'tag_distance': 'per_dimension'},
        twin='mmpose',
        inputs=_wide_tag_inputs,
    ),
    Case('keypoint loss', 'HeatmapGroupingLoss', inputs=_both_inputs),
    Case('keypoint loss', 'PartAffinityFieldLoss', inputs=_field_inputs),
    Case('keypoint loss', 'PartAffinityFieldLoss', {'field_weight': 2.0}, inputs=_field_inputs),
    Case(
        'keypoint head',
        'PartAffinityFieldHead',
        {'in_channels': 4, 'num_keypoints': JOINTS, 'limbs': LIMBS, 'deconv_out_channels': None},
    ),
    Case('keypoint codec', 'AssociativeEmbeddingCodec', _SIZES, maps=_tag_maps),
    Case(
        'keypoint codec', 'AssociativeEmbeddingCodec', {**_SIZES, 'use_udp': True}, maps=_tag_maps
    ),
    *(
        Case(
            'keypoint codec',
            'PartAffinityField',
            {**_SIZES, 'limbs': LIMBS, 'matching': matching},
            maps=_field_maps,
        )
        for matching in ('optimal', 'greedy')
    ),
)
