"""Cases of the losses of overlap: masks of objects, and label maps."""

from __future__ import annotations

import torch
from torch import Tensor

from mmdet_ext.catalog.case import Case
from mmdet_ext.catalog.loss_cases.inputs import Inputs, loss_case

_CLASSES = 3
_SIDE = 4
#: Sizes of logits at which a logarithm, an exponential or float16 fails, with either sign.
_EDGES = (0.0, 1e-4, 8.5, 17.0, 60.0, 90.0, 1e3, 1e4)


def label_maps(generator: torch.Generator, count: int) -> Inputs:
    """Make logits (count, 3, 4, 4) and labels; most images lack no class."""
    logits = 3 * torch.randn(count, _CLASSES, _SIDE, _SIDE, generator=generator)
    return logits, torch.randint(0, _CLASSES, (count, _SIDE, _SIDE), generator=generator)


def hard_label_maps(generator: torch.Generator, count: int) -> Inputs:
    """Make logits at the edges, and labels, of which rows or whole images are ignored."""
    _, label = label_maps(generator, count)
    label[::3, 0] = 255
    label[1::5] = torch.randint(-1, _CLASSES, (len(label[1::5]), 1, 1), generator=generator)
    return _edges(generator, (count, _CLASSES, _SIDE, _SIDE)), label


def binary_maps(generator: torch.Generator, count: int) -> Inputs:
    """Make logits (count, 1, 4, 4) and labels 0 and 1."""
    logits = 3 * torch.randn(count, 1, _SIDE, _SIDE, generator=generator)
    return logits, torch.randint(0, 2, (count, _SIDE, _SIDE), generator=generator)


def hard_binary_maps(generator: torch.Generator, count: int) -> Inputs:
    """Make logits (count, 1, 4, 4) at the edges, and labels that are all 0 or all ignored too."""
    _, label = hard_label_maps(generator, count)
    label[label == _CLASSES - 1] = 1
    return _edges(generator, (count, 1, _SIDE, _SIDE)), label


def object_masks(generator: torch.Generator, count: int) -> Inputs:
    """Make logits and masks (count, 20), as mask heads give them; some pixels are half covered."""
    logits = 3 * torch.randn(count, 20, generator=generator)
    mask = torch.randint(0, 2, (count, 20), generator=generator).float()
    mask[:, ::5] = torch.rand(count, 4, generator=generator)
    return logits, mask


def hard_object_masks(generator: torch.Generator, count: int) -> Inputs:
    """Make logits at the edges and masks, some of them empty, full, tiny or with ignored pixels."""
    _, mask = object_masks(generator, count)
    mask[::4] = 0
    mask[1::8] = 1
    mask[2::8] *= 1e-6
    mask[3::8, 3] = -1
    return _edges(generator, (count, 20)), mask


def object_probabilities(generator: torch.Generator, count: int) -> Inputs:
    """Make probabilities and masks (count, 20)."""
    logits, mask = object_masks(generator, count)
    return (logits / 2).sigmoid(), mask


def hard_object_probabilities(generator: torch.Generator, count: int) -> Inputs:
    """Make probabilities, many of them exactly 0 or 1, and masks."""
    logits, mask = hard_object_masks(generator, count)
    return logits.sigmoid(), mask


def bench_masks(generator: torch.Generator, count: int) -> Inputs:
    """Make logits and masks of points, as Mask2Former samples them."""
    logits = torch.randn(max(1, count // 1000), 12_544, generator=generator)
    return logits, (torch.rand(logits.shape, generator=generator) < 0.2).float()


def _edges(generator: torch.Generator, shape: tuple[int, ...]) -> Tensor:
    """Draw logits at the edges; every seventh image is equal in all elements."""
    edges = torch.tensor([sign * edge for edge in _EDGES for sign in (1, -1)])
    logits = edges[torch.randint(0, len(edges), shape, generator=generator)]
    rows = logits.flatten(1)
    rows[::7] = rows[::7, :1]
    return logits


_PROBABILITIES = (object_probabilities, hard_object_probabilities)
_SOFTMAX = {'use_sigmoid': False}
_BATCH = {'batch': True, 'per_class': True}

REGION_LOSSES: tuple[Case, ...] = (
    loss_case('DiceLoss', object_masks, hard_object_masks, twin=True, bench_inputs=bench_masks),
    loss_case(
        'DiceLoss',
        object_masks,
        hard_object_masks,
        options={'naive_dice': True, 'eps': 1.0},
        twin=True,
        bench_inputs=bench_masks,
    ),
    loss_case(
        'DiceLoss',
        *_PROBABILITIES,
        options={'activate': False, 'eps': 1e-5},
        hosts=('mmdet', 'mmengine'),
        twin=True,
        bench_inputs=object_probabilities,
    ),
    loss_case('DiceLoss', label_maps, hard_label_maps, options=_SOFTMAX),
    loss_case(
        'DiceLoss',
        label_maps,
        hard_label_maps,
        options={'per_class': True, 'class_weight': [0.5, 1.0, 2.0], 'smooth': 0.5},
    ),
    loss_case('DiceLoss', binary_maps, hard_binary_maps, options={'eps': 1e-9}),
    loss_case(
        'DiceLoss',
        label_maps,
        hard_label_maps,
        options={**_SOFTMAX, **_BATCH, 'include_background': False},
        together=True,
    ),
    loss_case(
        'DiceLoss',
        label_maps,
        hard_label_maps,
        options={**_SOFTMAX, 'per_class': True, 'naive_dice': True, 'ignore_absent': True},
        together=True,
    ),
    loss_case('DiceCELoss', label_maps, hard_label_maps),
    loss_case(
        'DiceCELoss',
        label_maps,
        hard_label_maps,
        options={'class_weight': [0.5, 1.0, 2.0], 'naive_dice': False, 'avg_non_ignore': True},
    ),
    loss_case('DiceCELoss', binary_maps, hard_binary_maps, options={'use_sigmoid': True}),
    loss_case('DiceCELoss', label_maps, hard_label_maps, options={'batch': True}, together=True),
    loss_case('TverskyLoss', label_maps, hard_label_maps, twin='mmseg'),
    loss_case(
        'TverskyLoss',
        label_maps,
        hard_label_maps,
        options={'gamma': 4 / 3, 'smooth': 1e-6, 'alpha': 1.0, 'beta': 0.5},
    ),
    loss_case(
        'TverskyLoss', binary_maps, hard_binary_maps, options={'gamma': 4 / 3, 'smooth': 0.0}
    ),
)
