"""Regions of segmentation: which elements form one, and the form in which they are computed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import Tensor

from mmdet_ext.functional.classification.labels import check_class_shapes
from mmdet_ext.functional.numerics.checks import check_one_of

__all__ = ['Activation', 'RegionTables', 'Regions', 'region_tables', 'used_activation']

#: What makes probabilities of predictions: 'sigmoid' of each element, 'softmax' over the classes,
#: or 'none' where the predictions are probabilities.
Activation = Literal['sigmoid', 'softmax', 'none']


@dataclass(frozen=True)
class Regions:
    """Regions that a loss of overlap compares, one loss for each.

    Attributes:
        activation: what makes probabilities of the predictions. One channel has no softmax: there
            'softmax' is the sigmoid.
        per_class: whether each class of an image is a region of its own. Otherwise all classes of
            an image are one region.
        batch: whether a region extends over all images of the batch.
        include_background: whether class 0 takes part, where there are several classes.
        ignore_absent: whether regions without a ground-truth pixel take no part: their loss is 0,
            and means do not count them.
        class_weight: (C,), from 0, or one number. With ``per_class`` it is the factor of the loss
            of each class, otherwise of its pixels. None: all 1.
        ignore_index: label of pixels that take no part, beside negative labels.

    Raises:
        ValueError: for another ``activation``.
    """

    activation: Activation = 'softmax'
    per_class: bool = True
    batch: bool = False
    include_background: bool = True
    ignore_absent: bool = False
    class_weight: float | Sequence[float] | Tensor | None = None
    ignore_index: int = 255

    def __post_init__(self) -> None:
        """Check the activation."""
        check_one_of('activation', self.activation, Activation)


class RegionTables(NamedTuple):
    """Predictions, targets and weights with one dimension of classes and one of pixels.

    Attributes:
        pred: (N, C, P).
        target: labels (N, 1, P), or a target of each element (N, C, P).
        weight: (N, 1, P) or (N, C, P), or None.
        one_hot: whether the target holds labels of C classes.
    """

    pred: Tensor
    target: Tensor
    weight: Tensor | None
    one_hot: bool


def region_tables(
    pred: Tensor, target: Tensor, weight: Tensor | None, regions: Regions
) -> RegionTables:
    """Bring the arguments of a loss into the form in which it is computed, without copies.

    Args:
        pred: (N, C, ...) with labels as the target, any shape (N, ...) otherwise.
        target: labels (N, ...); or a target of each element, of the shape of ``pred``.
        weight: one weight per pixel, of the shape of the labels; per element, of the shape of
            ``pred``; or per image, (N,).
        regions: the regions. Without ``per_class`` a target of each element needs no classes.

    Raises:
        ValueError: for shapes that do not fit; for labels with ``activation`` 'softmax' beyond the
            classes.
    """
    check_class_shapes(pred, target, dense=True)
    count, dense = len(pred), target.shape == pred.shape
    # Without elements a size of -1 would be ambiguous.
    has_classes = pred.dim() > 1 and not (dense and _one_row(pred, regions))
    classes = pred.shape[1] if has_classes else 1
    pixels = math.prod(pred.shape[2:] if has_classes else pred.shape[1:])
    if weight is not None:
        weight = _weight_table(weight, pred, classes, pixels)
    return RegionTables(
        pred.reshape(count, classes, pixels),
        target.reshape(count, classes if dense else 1, pixels),
        weight,
        one_hot=not dense and classes > 1,
    )


def used_activation(activation: Activation, tables: RegionTables) -> Activation:
    """Return the activation; the softmax of one channel, which is constant, becomes the sigmoid."""
    one = tables.pred.shape[1] == 1
    return 'sigmoid' if activation == 'softmax' and one else activation


def _one_row(pred: Tensor, regions: Regions) -> bool:
    """Return whether the classes of a target of each element are one region anyway."""
    plain = regions.include_background and regions.class_weight is None
    return pred.dim() == 1 or (plain and not regions.per_class and regions.activation != 'softmax')


def _weight_table(weight: Tensor, pred: Tensor, classes: int, pixels: int) -> Tensor:
    """Return weights of pixels (N, 1, P), or of elements (N, C, P)."""
    count = len(pred)
    if weight.shape == pred.shape:
        return weight.reshape(count, classes, pixels)
    if pred.dim() > 1 and weight.shape == pred.shape[:1] + pred.shape[2:]:
        if pixels * count == weight.numel():
            return weight.reshape(count, 1, pixels)
        # The classes are part of the row of pixels.
        return weight.unsqueeze(1).expand(pred.shape).reshape(count, classes, pixels)
    if weight.shape == (count,):
        return weight.reshape(count, 1, 1).expand(count, 1, pixels)
    pixel_shape = tuple(pred.shape[:1] + pred.shape[2:])
    raise ValueError(
        f'weight of shape {tuple(weight.shape)} does not fit pred {tuple(pred.shape)}: give one '
        f'weight per pixel, {pixel_shape}, per element, or per image, ({count},)'
    )
