"""Checks of box pairs and of the options that all overlap losses take."""

from __future__ import annotations

from torch import Tensor

from mmdet_ext.functional.numerics.checks import check_number

__all__ = ['check_aligned_boxes', 'check_overlap_options', 'check_same_shape']


def check_overlap_options(eps: float, power: float, inner_ratio: float) -> None:
    """Raise ValueError, naming the option, unless all three are finite and above 0."""
    for name, value, why in (
        ('eps', eps, 'it keeps quotients finite'),
        ('power', power, 'it is the exponent of the IoU and of the penalties, 1 for none'),
        ('inner_ratio', inner_ratio, 'boxes are scaled by it for the overlap, 1 for as they are'),
    ):
        check_number(name, value, above=0, finite=True, why=why)


def check_aligned_boxes(pred: Tensor, target: Tensor) -> None:
    """Raise an error that names both, unless these are boxes of one shape (..., 4).

    Raises:
        TypeError: if one is no tensor.
        ValueError: if the shapes differ or do not end in 4.
    """
    for name, boxes in (('pred', pred), ('target', target)):
        if not isinstance(boxes, Tensor):
            raise TypeError(
                f'{name} must be a tensor of boxes (..., 4), got {type(boxes).__name__}'
            )
    if pred.shape != target.shape or pred.shape[-1:] != (4,):
        raise ValueError(
            'pred and target must be boxes of one shape (..., 4), got '
            f'{tuple(pred.shape)} and {tuple(target.shape)}'
        )


def check_same_shape(pred: Tensor, target: Tensor) -> None:
    """Raise ValueError, naming both, unless ``pred`` and ``target`` have one shape."""
    if pred.shape != target.shape:
        raise ValueError(
            'pred and target must have one shape, got '
            f'{tuple(pred.shape)} and {tuple(target.shape)}'
        )
