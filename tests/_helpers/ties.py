"""Whether two assignments of one image differ by rounding alone, told by bounds in float64.

A value that is computed in float32 lies between its bounds: the exact one less and plus what
rounding does to it. What bounds leave open is a tie; what they do not is a rule, and an assignment
that breaks it is wrong. So each of two that differ is held against the rule, and both can stand
only where the bounds overlap.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mmdet_ext.catalog.scenes import scene

#: Distance of neighbouring float32 numbers, relative to them.
ROUNDING = 2.0**-23

#: What rounding does to an IoU, relative to it: of two areas, their sum and a quotient.
IOU_ROUNDING = 8 * ROUNDING

#: Most boxes of `crowded_scene`, in turn: few where a case is to be seen, and up to 500. Their
#: number has no divisor in common with those of the scene's kinds and sides.
MOST_BOXES = (25, 60, 25, 120, 25, 250, 25, 500, 25)


def crowded_scene(case: int) -> tuple[Tensor, Tensor]:
    """As `scene`, of up to 500 boxes: in a third of the images more than some tens."""
    return scene(case, most=MOST_BOXES[case % len(MOST_BOXES)])


class Bounds(NamedTuple):
    """Between what a table of float32 numbers lies."""

    least: Tensor
    most: Tensor


def bounds(exact: Tensor, slack: Tensor | float) -> Bounds:
    """Bounds of what is within ``slack`` of ``exact`` (float64) before it is rounded once more.

    Large numbers stand for all that is rounded to them, and what is too large for float32 is
    infinity: of two such costs, none is less.

    >>> [part.tolist() for part in bounds(torch.tensor([1e5 + 3e-3, 1e39]).double(), 1e-4)]
    [[100000.0, inf], [100000.0, inf]]
    """
    exact = exact.double()
    return Bounds((exact - slack).float(), (exact + slack).float())


class Claims(NamedTuple):
    """Who claims what: certainly, and possibly."""

    sure: Tensor
    possible: Tensor


def smallest(values: Bounds, fewest: Tensor | int, most: Tensor | int) -> Claims:
    """What is among the k smallest of each row (R, N), with k from ``fewest`` to ``most`` (R,).

    >>> rows = torch.tensor([[1.0, 2.0, 2.0, 3.0]])
    >>> [part.tolist() for part in smallest(bounds(rows, 1e-6), 2, 2)]
    [[[True, False, False, False]], [[True, True, True, False]]]
    """
    before = torch.searchsorted(values.most.sort(1).values, values.least)
    as_small = torch.searchsorted(values.least.sort(1).values, values.most, right=True)
    fewest, most = (torch.as_tensor(k).view(-1, 1) for k in (fewest, most))
    return Claims(as_small <= fewest, before < most)


def follows_claims(chosen: Tensor, claims: Claims, cost: Bounds, of_all: bool) -> Tensor:
    """Whether priors (N,) have gone where a rule sends them, bool (N,).

    A prior that nobody claims is background, and one of several boxes goes to that of least cost.

    Args:
        chosen: (N,), the box from 1; 0 is background.
        claims: (G, N).
        cost: (G, N).
        of_all: the least cost of all boxes counts once several claim a prior, not of these alone.
    """
    if len(claims.sure) == 0:
        return chosen == 0
    box = (chosen - 1).clamp(min=0)
    column = torch.arange(len(chosen))
    sure = claims.sure.sum(0)
    own, possible = claims.sure[box, column], claims.possible[box, column]
    if of_all:
        alone = possible & (sure - own.long() == 0)
        several = claims.possible.sum(0) > 1
        right = alone | (several & (cost.least[box, column] <= cost.most.amin(0)))
    else:
        rival = cost.most.where(claims.sure, torch.inf).amin(0)
        right = possible & (cost.least[box, column] <= rival)
    return right.where(chosen > 0, sure == 0)
