"""From sums over pixels to one loss per region."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mmdet_ext.functional.numerics.checks import check_number
from mmdet_ext.functional.segmentation.regions import Activation, Regions
from mmdet_ext.functional.segmentation.sums import RegionSums

__all__ = [
    'RegionLosses',
    'RegionTotals',
    'check_smoothing_terms',
    'least_smoothing',
    'region_losses',
    'region_totals',
    'region_weights',
]


class RegionTotals(NamedTuple):
    """Sums of each region: (N, C), or (N,) without ``per_class``; N is 1 with ``batch``.

    Attributes:
        overlap: overlap of prediction and ground truth.
        miss: how much the prediction misses the ground truth by.
        counted: whether the region takes part.
    """

    overlap: Tensor
    miss: Tensor
    counted: Tensor


class RegionLosses(NamedTuple):
    """Losses of regions, and which of them count.

    Attributes:
        loss: (N, C) or (N,); 0 where the region does not take part.
        counted: whether the region takes part, the shape of ``loss``.
    """

    loss: Tensor
    counted: Tensor


def region_totals(sums: RegionSums, regions: Regions) -> RegionTotals:
    """Add the sums of images and classes that form one region.

    Args:
        sums: sums per image and class.
        regions: the regions.

    Returns:
        RegionTotals: a region takes part if a pixel of it counts, and with ``ignore_absent`` only
        if one of its ground truth does.

    >>> two = torch.tensor([[1., 2.]])
    >>> none = torch.zeros(0)
    >>> region_totals(RegionSums(two, two, two, two, none), Regions(per_class=False)).overlap
    tensor([3.])
    """
    first = int(not regions.include_background and sums.overlap.shape[1] > 1)
    overlap, miss, size, counted = (table[:, first:] for table in sums[:4])
    if regions.batch:
        overlap, miss, size, counted = (
            table.sum(0, keepdim=True) for table in (overlap, miss, size, counted)
        )
    if not regions.per_class:
        weight = region_weights(regions, sums.overlap)
        if weight is not None:
            overlap, miss, size, counted = (t * weight for t in (overlap, miss, size, counted))
        overlap, miss, size, counted = (table.sum(1) for table in (overlap, miss, size, counted))
    part = counted > 0
    if regions.ignore_absent:
        part = part & (size > 0)
    return RegionTotals(overlap, miss, part)


def region_losses(loss: Tensor, counted: Tensor, regions: Regions, classes: int) -> RegionLosses:
    """Weigh the losses of regions by class, and set those to 0 that do not take part.

    Args:
        loss: (N, C) or (N,).
        counted: the shape of ``loss``.
        regions: the regions.
        classes: number of all classes, with the background.
    """
    if regions.per_class:
        weight = region_weights(regions, loss, classes)
        loss = loss if weight is None else loss * weight
    return RegionLosses(torch.where(counted, loss, 0.0), counted)


def region_weights(regions: Regions, like: Tensor, classes: int | None = None) -> Tensor | None:
    """Return the weights of the classes that take part; None where all weigh 1.

    Args:
        regions: the regions.
        like: tensor with the precision and device of the result.
        classes: number of all classes; None for those of ``like``.

    Raises:
        ValueError: for another number of weights.
    """
    if regions.class_weight is None:
        return None
    classes = like.shape[1] if classes is None else classes
    weight = torch.as_tensor(regions.class_weight, dtype=like.dtype, device=like.device)
    weight = weight.reshape(-1)
    if weight.shape == (1,):
        weight = weight.expand(classes)
    if weight.shape != (classes,):
        raise ValueError(
            f'class_weight must be one number, or one per class: {classes}, got '
            f'{tuple(weight.shape)}'
        )
    return weight[int(not regions.include_background and classes > 1) :]


def least_smoothing(activation: Activation, dtype: torch.dtype, exponent: int) -> float:
    """Return the least smoothing of a quotient that keeps its gradient finite.

    Args:
        activation: what makes probabilities of the predictions. Where nothing does, the gradient
            of a region without ground truth is up to the reciprocal of its smoothing.
        dtype: precision of the predictions, and so of their gradient.
        exponent: 1, or 2, where it is up to the root of the reciprocal.

    >>> least_smoothing('sigmoid', torch.float16, 1)
    1e-12
    >>> least_smoothing('none', torch.float16, 1) == 2**-12
    True
    """
    bounded = activation != 'none' or dtype != torch.float16
    return 1e-12 if bounded else 2.0 ** (-12 * exponent)


def check_smoothing_terms(**terms: float) -> None:
    """Raise ValueError unless each term of a smoothing is finite and at least 0."""
    for name, value in terms.items():
        check_number(name, value, least=0, finite=True)
