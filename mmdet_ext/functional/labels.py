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


def split_labels(labels: Tensor, num_classes: int) -> Labels:
    """Labels 0 to C - 1 are classes, C and above background, below 0 ignored.

    >>> split_labels(torch.tensor([1, 2, -1]), 2).positive_mask
    tensor([ True, False, False])
    """
    labels = labels.long()
    positive = (labels >= 0) & (labels < num_classes)
    return Labels(torch.where(positive, labels, 0), positive, labels >= 0)
