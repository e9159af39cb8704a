"""Logits and labels for classes of unequal frequency, in float64."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from mmdet_ext.catalog.loss_cases.long_tail import CLASSES, logits_and_labels
from tests._helpers.losses.gradients import seeded


def labelled(columns: int, count: int = 40, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Make logits (count, columns) and labels from 0 to CLASSES, the background."""
    pred, label = logits_and_labels(columns)[0](seeded(seed), count)
    return pred.double(), label


def one_hot(label: Tensor) -> Tensor:
    """Return a table (N, CLASSES), with rows of zeros for the background."""
    return F.one_hot(label, CLASSES + 1)[:, :CLASSES]
