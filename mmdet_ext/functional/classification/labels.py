"""Class labels as tables of classes are indexed with them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Labels(NamedTuple):
    """Class labels (N,), or (N, ...), split into what a table (N, C, ...) is indexed with.

    Attributes:
        column: label within 0 to C - 1; 0 where there is none.
        positive_mask: the label names a class.
        valid_mask: the label is not negative. Negative labels are ignored.
    """

    column: Tensor
    positive_mask: Tensor
    valid_mask: Tensor


def label_index(
    label: Tensor,
    ignored: Tensor,
    classes: int,
    name: str = 'target',
    remedy: str = 'make it negative, or name it as ignore_index where the loss has that option',
) -> Tensor:
    """The columns that labels name, 0 for ignored ones.

    Args:
        label: any shape.
        ignored: likewise, True where nothing counts.
        classes: how many columns there are.
        name: what the message calls the labels.
        remedy: how a label is left out.

    Raises:
        ValueError: on a CPU, for a label beyond the columns. Elsewhere to look would be to wait
            for the device, which finds it itself.
    """
    index = label.long().masked_fill(ignored, 0)
    if index.device.type != 'cpu' or torch.compiler.is_compiling() or index.numel() == 0:
        return index
    most = int(index.max())
    if most >= classes:
        raise ValueError(
            f'{name} has the label {most}, but pred has {classes} columns, for labels up to '
            f'{classes - 1}. To leave that label out, {remedy}; otherwise look at num_classes '
            '(with softmax the background is a column too)'
        )
    return index


def without_weightless(target: Tensor, weight: Tensor | None) -> Tensor:
    """The target with -1, ignored, where the weight is 0; a weight that does not fit is left.

    For what is counted over the targets of a call: heads mark what they leave out by a weight of
    0, and give it the background's label.

    Args:
        target: labels (N, ...), or targets of each element (N, C, ...).
        weight: of the shape of either, or one a sample, (N,).

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


def split_labels(labels: Tensor, num_classes: int) -> Labels:
    """Labels 0 to C - 1 are classes, C and above background, below 0 ignored.

    >>> split_labels(torch.tensor([1, 2, -1]), 2).positive_mask
    tensor([ True, False, False])
    """
    labels = labels.long()
    positive = (labels >= 0) & (labels < num_classes)
    return Labels(torch.where(positive, labels, 0), positive, labels >= 0)
