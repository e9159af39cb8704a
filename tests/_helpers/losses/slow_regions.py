"""Slow references of the losses of regions: loops over images and classes, and autograd."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from mmdet_ext.functional.segmentation.regions import Regions

#: Probabilities, ground truth and weights of the pixels of a region.
Pixels = tuple[Tensor, Tensor, Tensor]


def probabilities(pred: Tensor, activation: str) -> Tensor:
    """Probabilities of predictions (N, C, ...)."""
    if activation == 'none':
        return pred
    one = pred.shape[1] == 1
    return pred.sigmoid() if activation == 'sigmoid' or one else pred.softmax(1)


def parts(
    pred: Tensor, label: Tensor, weight: Tensor | None, regions: Regions
) -> list[list[Pixels]]:
    """Probabilities, truth and weights of the pixels of each image and class, as flat tensors.

    Ignored pixels are left out by indexing, which the function under test cannot do.
    """
    p = probabilities(pred, regions.activation)
    found = []
    for n in range(len(pred)):
        kept = (label[n] >= 0) & (label[n] != regions.ignore_index)
        w = torch.ones(label[n].shape, dtype=p.dtype) if weight is None else weight[n]
        row = []
        for c in range(pred.shape[1]):
            own = 1 if pred.shape[1] == 1 else c
            row.append((p[n, c][kept], (label[n] == own)[kept].to(p.dtype), w[kept]))
        found.append(row)
    return found


def joined(rows: list[list[Pixels]], regions: Regions) -> list[list[Pixels]]:
    """Pixels of each region: rows of an image (or the batch), columns of a class (or all)."""
    first = int(not regions.include_background and len(rows[0]) > 1)
    rows = [row[first:] for row in rows]
    if regions.batch:
        rows = [[one_region(column) for column in zip(*rows, strict=True)]]
    return rows if regions.per_class else [[one_region(row)] for row in rows]


def one_region(several: Iterable[Pixels]) -> Pixels:
    """All pixels of several regions."""
    p, t, w = (torch.cat(part) for part in zip(*several, strict=True))
    return p, t, w


def slow_regions(
    pred: Tensor,
    label: Tensor,
    weight: Tensor | None,
    regions: Regions,
    formula: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> Tensor:
    """Compute the loss of each region by a formula of (p, t, w); 0 where no pixel counts."""
    rows = []
    for row in joined(parts(pred, label, weight, regions), regions):
        values = []
        for p, t, w in row:
            counts = w.sum() > 0 and not (regions.ignore_absent and (w * t).sum() == 0)
            values.append(formula(p, t, w) if counts else 0 * p.sum())
        rows.append(torch.stack(values))
    loss = torch.stack(rows)
    return loss if regions.per_class else loss.squeeze(1)


def slow_dice(p: Tensor, t: Tensor, w: Tensor, exponent: int, eps: float, smooth: float) -> Tensor:
    """Dice loss as the papers write it: 1 - 2 |both| / (|p| + |t|)."""
    both = 2 * (w * p * t).sum() + smooth + (eps if exponent == 1 else 0)
    sizes = (w * p**exponent).sum() + (w * t**exponent).sum() + smooth
    return 1 - both / (sizes + (eps if exponent == 1 else 2 * eps))


def slow_tversky(
    p: Tensor, t: Tensor, w: Tensor, alpha: float, beta: float, smooth: float, gamma: float
) -> Tensor:
    """Tversky loss as the papers write it."""
    both = (w * p * t).sum() + smooth
    wrong = alpha * (w * p * (1 - t)).sum() + beta * (w * (1 - p) * t).sum()
    return (1 - both / (both + wrong)) ** (1 / gamma)
