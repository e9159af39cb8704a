"""Cases of the overlap losses and of NWD."""

from __future__ import annotations

from typing import Any

import torch

from mmdet_ext.catalog.case import Case
from mmdet_ext.catalog.loss_cases.inputs import Inputs, loss_case
from mmdet_ext.catalog.synthetic import fuzz_box_pairs, random_boxes


def box_pairs(generator: torch.Generator, count: int) -> Inputs:
    """Draw targets (count, 4), and predictions with corners off by a tenth of a side on average."""
    target = random_boxes(generator, count)
    sides = (target[:, 2:] - target[:, :2]).repeat(1, 2)
    jitter = torch.rand(count, 4, generator=generator) - 0.5
    return target + 0.4 * sides * jitter, target


def overlap_case(name: str, stock: bool = False, **options: Any) -> Case:
    """Make the case of a loss of aligned boxes that is 0 where they are equal.

    Args:
        name: registered name.
        stock: mmdet has a loss of this name and these options.
        **options: options of the loss; ``detaches`` and ``together`` are fields of the case.
    """
    fields = {key: options.pop(key) for key in ('detaches', 'together') if key in options}
    return loss_case(
        name,
        box_pairs,
        fuzz_box_pairs,
        family='overlap',
        options=options,
        zero_at_target=True,
        twin=stock,
        **fields,
    )


BOX_LOSSES = (
    overlap_case('IoULoss', stock=True),
    overlap_case('IoULoss', stock=True, mode='linear'),
    overlap_case('IoULoss', stock=True, mode='square'),
    overlap_case('IoULoss', mode='linear', power=0.5),
    overlap_case('IoULoss', mode='log', inner_ratio=0.7),
    overlap_case('GIoULoss', stock=True),
    overlap_case('GIoULoss', power=0.5),
    overlap_case('GIoULoss', inner_ratio=0.7),
    overlap_case('DIoULoss', stock=True),
    overlap_case('DIoULoss', power=3.0),
    overlap_case('CIoULoss', stock=True, detaches=True),
    overlap_case('CIoULoss', power=3.0, inner_ratio=0.7, detaches=True),
    overlap_case('CIoULoss', aspect_thr=None, detaches=True),
    overlap_case('SIoULoss', stock=True),
    overlap_case('SIoULoss', stock=True, neg_gamma=True),
    overlap_case('SIoULoss', neg_gamma=True, power=0.5),
    overlap_case('EfficientIoULoss'),
    overlap_case('EfficientIoULoss', focal_gamma=0.5, detaches=True),
    overlap_case('EfficientIoULoss', power=0.5),
    overlap_case('ShapeIoULoss'),
    overlap_case('ShapeIoULoss', scale=1.0, inner_ratio=1.3),
    overlap_case('MPDIoULoss'),
    overlap_case('MPDIoULoss', image_size=(320, 256), power=3.0),
    overlap_case('WiseIoULoss', version='v1', detaches=True),
    overlap_case('WiseIoULoss', version='v2', detaches=True, together=True),
    overlap_case('WiseIoULoss', detaches=True, together=True),
    overlap_case('NWDLoss'),
)
