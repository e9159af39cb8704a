"""Slow references for losses of scores in [0, 1], element by element in Python numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

#: Loss of a logit with a score.
SlowLoss = Callable[[float, float], float]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def slow_entropy(p: float, y: float) -> float:
    """Compute the cross entropy of a probability within (0, 1) with a score."""
    return -(y * math.log(p) + (1 - y) * math.log(1 - p))


def table(slow: SlowLoss, pred: Tensor, target: Tensor) -> Tensor:
    """Apply a slow reference to all elements."""
    values = [
        slow(x, y) for x, y in zip(pred.flatten().tolist(), target.flatten().tolist(), strict=True)
    ]
    return torch.tensor(values, dtype=torch.float64).reshape(pred.shape)


def slopes(slow: SlowLoss, pred: Tensor, target: Tensor) -> Tensor:
    """Compute the derivatives of a slow reference by central differences."""
    step = 1e-5
    up = table(lambda x, y: slow(x + step, y), pred, target)
    down = table(lambda x, y: slow(x - step, y), pred, target)
    return (up - down) / (2 * step)


def spread(label: Tensor, score: Tensor, classes: int) -> Tensor:
    """Make dense scores from labels, row by row."""
    scores = torch.zeros(len(label), classes, dtype=score.dtype)
    for row, (k, s) in enumerate(zip(label.tolist(), score.tolist(), strict=True)):
        if 0 <= k < classes:
            scores[row, k] = s
    return scores


def double(pred: Tensor, target: Any) -> tuple[Tensor, Any]:
    """Convert predictions and scores to float64."""
    if isinstance(target, tuple):
        return pred.double(), (target[0], target[1].double())
    return pred.double(), target.double()
