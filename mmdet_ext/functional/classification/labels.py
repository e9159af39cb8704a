"""Class labels: their shapes, their use as indices, and labels that are ignored."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = [
    'binary_columns',
    'check_class_shapes',
    'check_label_range',
    'is_label_map',
    'label_index',
    'without_label',
    'without_weightless',
]


_REMEDY = 'make it negative, or name it as ignore_index where the loss has that option'


def check_class_shapes(pred: Tensor, target: Tensor, dense: bool) -> None:
    """Raise ValueError unless a target fits predictions with the classes in dimension 1.

    Args:
        pred: (N, C, ...).
        target: labels (N, ...), or targets of the shape of ``pred``.
        dense: whether targets of the shape of ``pred`` are allowed.
    """
    labels = pred.shape[:1] + pred.shape[2:]
    if pred.dim() > 1 and target.shape == labels:
        if pred.shape[1] == 0 and target.numel() > 0:
            raise ValueError(
                f'pred must have a class or more in dimension 1 for labels {tuple(labels)}, got '
                f'{tuple(pred.shape)}: look at num_classes of the head'
            )
        return
    if not (dense and target.shape == pred.shape):
        or_dense = ' or, as targets of each element, of the shape of pred' if dense else ''
        raise ValueError(
            f'target must be labels {tuple(labels)} for pred {tuple(pred.shape)}, which has the '
            f'classes in dimension 1{or_dense}; got {tuple(target.shape)}'
        )


def label_index(
    label: Tensor,
    ignored: Tensor,
    classes: int,
    name: str = 'target',
    remedy: str = _REMEDY,
) -> Tensor:
    """Return the columns of labels, 0 for ignored labels.

    Args:
        label: labels of any shape.
        ignored: the shape of ``label``, True where a label is ignored.
        classes: number of columns.
        name: name of the labels in the error.
        remedy: advice in the error on how to ignore a label.

    Raises:
        ValueError: on a CPU, for a label beyond the columns. On a GPU the check would wait for the
            device, which stops with an error of its own.
    """
    index = label.long().masked_fill(ignored, 0)
    check_label_range(index, classes, name, remedy)
    return index


def check_label_range(
    label: Tensor, classes: int, name: str = 'target', remedy: str = _REMEDY
) -> None:
    """Raise ValueError on a CPU for a label beyond the columns.

    On a GPU the check would wait for the device, which stops with an error of its own.

    Args:
        label: labels of any shape; negative ones are ignored.
        classes: number of columns.
        name: name of the labels in the error.
        remedy: advice in the error on how to ignore a label.
    """
    if label.device.type != 'cpu' or torch.compiler.is_compiling() or label.numel() == 0:
        return
    most = int(label.max())
    if most >= classes:
        raise ValueError(
            f'{name} has the label {most}, but pred has {classes} columns, for labels up to '
            f'{classes - 1}. To leave that label out, {remedy}; otherwise look at num_classes '
            '(with softmax the background is a column too)'
        )


def without_weightless(target: Tensor, weight: Tensor | None) -> Tensor:
    """Return the target with -1, which is ignored, where the weight is 0.

    Statistics over the targets of a call need this: heads give samples that are ignored the
    background's label and a weight of 0.

    Args:
        target: labels (N, ...), or targets of each element (N, C, ...).
        weight: the shape of either, or one weight per sample, (N,). A weight of another shape
            changes nothing.

    >>> without_weightless(torch.tensor([0, 2]), torch.tensor([0., 1.]))
    tensor([-1,  2])
    """
    if weight is None:
        return target
    if weight.dim() == target.dim() + 1:
        by_class = weight.shape[:1] + weight.shape[2:] == target.shape
        weight = weight.any(1 if by_class else -1)
    elif weight.dim() < target.dim():
        weight = weight.reshape(weight.shape + (1,) * (target.dim() - weight.dim()))
    fits = weight.dim() == target.dim() and all(
        size in (1, wanted) for size, wanted in zip(weight.shape, target.shape, strict=True)
    )
    if not fits:
        return target
    # Labels may come as booleans or bytes, which hold no -1.
    return torch.where(weight != 0, target if target.is_floating_point() else target.long(), -1)


def is_label_map(pred: Tensor, target: object) -> bool:
    """Return whether the target is a map of labels (N, ...) for predictions (N, C, ...).

    Labels (N,) of rows (N, C) are no map, nor are targets of a floating type.

    >>> is_label_map(torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 2, dtype=torch.long))
    True
    """
    return (
        isinstance(target, Tensor)
        and not target.is_floating_point()
        and pred.dim() > 2
        and target.shape == pred.shape[:1] + pred.shape[2:]
    )


def without_label(target: Tensor, ignore_index: int | None) -> Tensor:
    """Return the target with -1, which is ignored, in place of ``ignore_index``.

    Args:
        target: labels, or targets of each element.
        ignore_index: label to ignore, such as 255; None, or a negative one: the target is
            returned as it is.

    >>> without_label(torch.tensor([0, 255], dtype=torch.uint8), 255)
    tensor([ 0, -1])
    """
    if ignore_index is None or ignore_index < 0:
        return target
    # Labels may come as booleans or bytes, which hold no -1.
    signed = target if target.is_floating_point() else target.long()
    return signed.masked_fill(signed == ignore_index, -1)


def binary_columns(label: Tensor) -> Tensor:
    """Return the columns of binary labels, for maps of one column that is the probability of 1.

    The label 1 is that column, 0, and the label 0 the background behind it, 1. Negative labels are
    ignored, and stay.

    Args:
        label: any shape; 0, 1 or negative.

    Raises:
        ValueError: on a CPU, for a label above 1.

    >>> binary_columns(torch.tensor([1, 0, -1]))
    tensor([ 0,  1, -1])
    """
    label = label.long()
    if label.device.type == 'cpu' and not torch.compiler.is_compiling() and label.numel() > 0:
        most = int(label.max())
        if most > 1:
            raise ValueError(
                f'target has the label {most}, but pred has one column, the probability of the '
                'label 1: labels must be 0 or 1. Look at num_classes and out_channels of the head, '
                'and at ignore_index'
            )
    return torch.where(label < 0, -1, 1 - label)
