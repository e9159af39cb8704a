"""Check that two assignments of one image differ by rounding alone, by bounds in float64.

A value that is computed in float32 lies between bounds: the exact value minus and plus the error
of rounding. A choice that the bounds leave open is a tie. A choice that they decide must follow
the rule, or the assignment is wrong. So each of two assignments that differ is checked against
the rule, and both pass only where the bounds overlap.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mmdet_ext.catalog.scenes import scene

#: Relative distance of neighbouring float32 numbers.
ROUNDING = 2.0**-23

#: Relative error of an IoU by rounding: of two areas, their sum and a quotient.
IOU_ROUNDING = 8 * ROUNDING

#: Largest number of boxes of `crowded_scene`, in turn. The length of this list has no divisor in
#: common with those of the scene's kinds and sides, so that all combinations occur.
MOST_BOXES = (25, 60, 25, 120, 25, 250, 25, 500, 25)


def crowded_scene(case: int) -> tuple[Tensor, Tensor]:
    """Draw a `scene` of up to 500 boxes; a third of the scenes have more than some tens."""
    return scene(case, most=MOST_BOXES[case % len(MOST_BOXES)])


class Bounds(NamedTuple):
    """Bounds of a table of float32 numbers."""

    least: Tensor
    most: Tensor


def bounds(exact: Tensor, slack: Tensor | float) -> Bounds:
    """Bound the values within ``slack`` of ``exact`` (float64), after rounding to float32.

    Values too large for float32 become infinity: of two such costs, neither is less.

    >>> [part.tolist() for part in bounds(torch.tensor([1e5 + 3e-3, 1e39]).double(), 1e-4)]
    [[100000.0, inf], [100000.0, inf]]
    """
    exact = exact.double()
    return Bounds((exact - slack).float(), (exact + slack).float())


class Claims(NamedTuple):
    """Claims of boxes on priors (G, N) bool: the certain ones, and the possible ones."""

    sure: Tensor
    possible: Tensor


def smallest(values: Bounds, fewest: Tensor | int, most: Tensor | int) -> Claims:
    """Find the k smallest values of each row (R, N), with k from ``fewest`` to ``most`` (R,).

    >>> rows = torch.tensor([[1.0, 2.0, 2.0, 3.0]])
    >>> [part.tolist() for part in smallest(bounds(rows, 1e-6), 2, 2)]
    [[[True, False, False, False]], [[True, True, True, False]]]
    """
    before = torch.searchsorted(values.most.sort(1).values, values.least)
    as_small = torch.searchsorted(values.least.sort(1).values, values.most, right=True)
    fewest, most = (torch.as_tensor(k).view(-1, 1) for k in (fewest, most))
    return Claims(as_small <= fewest, before < most)


def follows_claims(chosen: Tensor, claims: Claims, cost: Bounds, of_all: bool) -> Tensor:
    """Return for each prior (N,) whether its box can follow from the claims, bool (N,).

    A prior without claims is background. A prior of several boxes goes to that of least cost.

    Args:
        chosen: (N,) box from 1; 0 for background.
        claims: of G boxes on the priors.
        cost: bounds (G, N).
        of_all: True for a disputed prior to go to the box of least cost of all boxes, False for
            that of the boxes that claim it.
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
