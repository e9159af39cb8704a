"""Cases of the losses that mine hard examples."""

from __future__ import annotations

import torch

from mmdet_ext.catalog.case import Case
from mmdet_ext.catalog.loss_cases.inputs import Inputs, loss_case

#: Number of classes without the background.
CLASSES = 4


def mined_samples(generator: torch.Generator, count: int) -> Inputs:
    """Make softmax logits (count, 5) and labels, every second one background (the label 4)."""
    pred = 2 * torch.randn(count, CLASSES + 1, generator=generator)
    label = torch.randint(CLASSES, (count,), generator=generator)
    return pred, label.where(torch.arange(count) % 2 == 0, CLASSES)


def hard_samples(generator: torch.Generator, count: int) -> Inputs:
    """Make logits from 1e-4 to 1e4 in size, also equal ones, and labels.

    Half of the samples are background, a tenth is ignored.
    """
    shape = (count, CLASSES + 1)
    size = 10 ** (8 * torch.rand(count, 1, generator=generator) - 4)
    pred = size * torch.randn(shape, generator=generator).clamp(-1, 1)
    pred[::7] = pred[::7, :1]
    label = torch.randint(CLASSES, (count,), generator=generator)
    kind = torch.rand(count, generator=generator)
    label = label.masked_fill(kind > 0.4, CLASSES)
    return pred, label.masked_fill(kind > 0.9, -1)


def mined_binary(generator: torch.Generator, count: int) -> Inputs:
    """Make `mined_samples` for sigmoid: logits (count, 4), the background is the label 4."""
    pred, label = mined_samples(generator, count)
    return pred[:, :CLASSES].contiguous(), label


def hard_binary(generator: torch.Generator, count: int) -> Inputs:
    """Make `hard_samples` for sigmoid."""
    pred, label = hard_samples(generator, count)
    return pred[:, :CLASSES].contiguous(), label


SOFTMAX = dict(type='mmdet_ext.CrossEntropyLoss')
SIGMOID = dict(type='mmdet_ext.CrossEntropyLoss', use_sigmoid=True)

#: One mines the negatives of a detector, as labels of other hosts have no background; the other
#: the pixels of a segmentor.
DETECTION, SEGMENTATION = ('mmdet', 'mmengine'), ('mmseg', 'mmengine')

MINING_LOSSES: tuple[Case, ...] = (
    loss_case(
        'OHEMLoss',
        mined_samples,
        hard_samples,
        options={'loss': SOFTMAX},
        hosts=DETECTION,
        together=True,
    ),
    loss_case(
        'OHEMLoss',
        mined_binary,
        hard_binary,
        options={'loss': SIGMOID, 'use_sigmoid': True, 'num_negatives': 2},
        hosts=DETECTION,
        together=True,
    ),
    loss_case(
        'OHEMPixelLoss',
        mined_samples,
        hard_samples,
        options={'thresh': 0.4, 'min_kept': 3},
        hosts=SEGMENTATION,
        together=True,
    ),
    loss_case(
        'OHEMPixelLoss',
        mined_binary,
        hard_binary,
        options={'loss': SIGMOID, 'thresh': None, 'min_kept': 4},
        hosts=SEGMENTATION,
        together=True,
    ),
)
