"""Cosine similarities of embeddings, rounded to one grid so that equal images tie."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from mmdet_ext.functional.numerics.directions import unit_vectors

__all__ = ['Comparable', 'comparable', 'on_grid', 'pair_similarities', 'unit_embeddings']

#: Similarities are multiples of 1 / GRID, about 1e-6. In float32, the cosine of two embeddings
#: changes by some 1e-7 with the size of the matrix product that computes it. Rounding to a coarser
#: grid makes equal embeddings tie in products of any size, and allows exact counts of integers.
GRID = 2**20

#: Unit vectors that all lie within this squared distance from their mean are compared by their
#: differences: their cosines are above 1 - 2 * NARROW, where steps of 1 / GRID would be coarse.
NARROW = 2.0**-8

#: Smallest scale at which float64 cosines just below 1 can still be distinguished.
_LEAST_SCALE = 4.0**-15
_PAIRS_AT_ONCE = 65_536


class Comparable(NamedTuple):
    """Embeddings made ready for comparison: ``left @ right.T`` is the table of their levels.

    A level t stands for the cosine 1 - scale * (1 - t).

    Attributes:
        left: (N, K) float32.
        right: (N, K) float32; ``left`` itself if ``scale`` is 1.
        scale: in (0, 1]. Levels are in [-1, 1].
    """

    left: Tensor
    right: Tensor
    scale: float

    def cosines(self, levels: Tensor) -> Tensor:
        """Convert levels of any shape to cosines; float64 if ``scale`` is below 1."""
        return levels if self.scale == 1 else 1 - self.scale * (1 - levels.double())


def unit_embeddings(embeddings: Tensor) -> Tensor:
    r"""Scale embeddings to length 1: :math:`x / \lVert x \rVert`.

    Args:
        embeddings: (N, D), floating point, finite, of any length.

    Returns:
        Tensor: (N, D) float32. A row of zeros stays zeros, so that its similarities are 0.
        Lengths neither overflow nor underflow.

    Raises:
        ValueError: if the shape is not (N, D) with D >= 1, or a value is not finite.
        TypeError: if the embeddings are not of floating point.

    >>> unit_embeddings(torch.tensor([[3e30, 4e30], [0., 0.]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    if embeddings.ndim != 2 or embeddings.shape[1] < 1:
        raise ValueError(f'embeddings must be (N, D) with D >= 1, got {tuple(embeddings.shape)}')
    if not embeddings.is_floating_point():
        raise TypeError(f'embeddings must be of floating point, got {embeddings.dtype}')
    broken = int((~torch.isfinite(embeddings)).any(1).sum())
    if broken:
        raise ValueError(
            f'embeddings: {broken} of {len(embeddings)} rows hold NaN or infinite values; find out '
            'where the network makes them'
        )
    return unit_vectors(embeddings.detach())[0]


@torch.no_grad()
def comparable(embeddings: Tensor) -> Comparable:
    r"""Make embeddings ready for comparison, at a resolution that fits their distances.

    Ordinarily the result holds the unit vectors u, and levels are cosines. If all unit vectors lie
    close to their mean c (see `NARROW`), as those of a network that has collapsed, the result
    holds their differences :math:`a = (u - c) / \sqrt{s}`, computed in float64:

    .. math:: u_i \cdot u_j = 1 - \tfrac12 |u_i - u_j|^2 = 1 - s (1 - t), \quad
              t = a_i \cdot a_j + \tfrac12 (1 - |a_i|^2) + \tfrac12 (1 - |a_j|^2)

    The scale s is the smallest power of 4 for which all :math:`|a| \le 1`. Two additional columns
    turn the level t into a product of rows.

    Args:
        embeddings: as `unit_embeddings` takes them.

    Raises:
        ValueError: as `unit_embeddings`.
        TypeError: as `unit_embeddings`.

    >>> ready = comparable(torch.tensor([[1., 0.], [1., 1e-4]], dtype=torch.float64))
    >>> cosine = ready.cosines(ready.left @ ready.right.T)[0, 1]
    >>> round(float(1 - cosine), 12)
    5e-09
    """
    unit = unit_embeddings(embeddings)
    with torch.autocast(unit.device.type, enabled=False):
        mean = unit.mean(0)
        # Squared distances from the mean. Rows of zeros count as if they were 1 long, so that
        # they are far from the mean.
        wide = not len(unit) or bool((1 + mean @ mean - 2 * (unit @ mean)).max() > NARROW)
    return Comparable(unit, unit, 1.0) if wide else _stretched(embeddings.detach().double())


def _stretched(embeddings: Tensor) -> Comparable:
    """Make embeddings ready that are close to each other: float64, no row of zeros."""
    unit, _ = unit_vectors(embeddings, dtype=torch.float64)
    apart = unit - unit.mean(0)
    reach = float(apart.square().sum(1).max())
    scale = _LEAST_SCALE if reach <= _LEAST_SCALE else 4.0 ** math.ceil(math.log(reach, 4))
    scaled = (apart / math.sqrt(scale)).float()
    rest = (1 - scaled.double().square().sum(1, keepdim=True)).float() / 2
    one = torch.ones_like(rest)
    return Comparable(torch.cat([scaled, rest, one], 1), torch.cat([scaled, one, rest], 1), scale)


def on_grid(similarities: Tensor) -> Tensor:
    """Round similarities of any shape to multiples of 1 / GRID within [-1, 1], in float32.

    >>> on_grid(torch.tensor([0.5000003, 1.0000001])).tolist()
    [0.5, 1.0]
    """
    return similarities.float().mul(GRID).round_().clamp_(-GRID, GRID).div_(GRID)


@torch.no_grad()
def pair_similarities(embeddings: Tensor, index: Tensor) -> Tensor:
    """Compute the cosine of each listed pair.

    Args:
        embeddings: (N, D), as `comparable` takes them.
        index: (K, 2) integers, rows of ``embeddings``.

    Returns:
        Tensor: (K,) in [-1, 1], float32 on the grid. If all embeddings are close to each other
        (see `comparable`), float64 on a finer grid.

    Raises:
        ValueError: if ``index`` is not (K, 2).
        IndexError: if ``index`` names a row that does not exist.

    >>> embeddings = torch.tensor([[1., 0.], [0., 1.], [3., 4.]])
    >>> pair_similarities(embeddings, torch.tensor([[0, 1], [1, 2]]))
    tensor([0.0000, 0.8000])
    """
    if index.ndim != 2 or index.shape[1] != 2:
        raise ValueError(f'index must be (K, 2), got {tuple(index.shape)}')
    count = len(embeddings)
    if len(index) and not (int(index.min()) >= 0 and int(index.max()) < count):
        raise IndexError(
            f'index names rows {int(index.min())} to {int(index.max())}, but there are {count}'
        )
    ready = comparable(embeddings)
    parts = [
        (ready.left[some[:, 0]] * ready.right[some[:, 1]]).sum(1)
        for some in index.split(_PAIRS_AT_ONCE)
    ]
    return ready.cosines(on_grid(torch.cat(parts)))
