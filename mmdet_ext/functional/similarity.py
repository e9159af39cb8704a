"""Cosine similarities of embeddings, on one grid for whoever compares them."""

from __future__ import annotations

import torch
from torch import Tensor

from mmdet_ext.functional.unit_vectors import unit_vectors

#: Similarities are multiples of 1 / GRID, about 1e-6. In float32, the cosine of the same two
#: embeddings differs by some 1e-7 with the size of the matrix product that it is a part of. Rounded
#: to more than that, equal embeddings tie, whatever the blocks, and integers are counted exactly.
GRID = 2**20

_PAIRS_AT_ONCE = 65_536


def unit_embeddings(embeddings: Tensor) -> Tensor:
    r"""Embeddings of length 1: :math:`x / \lVert x \rVert`.

    Args:
        embeddings: (N, D), floating point, finite, of any length.

    Returns:
        Tensor: (N, D) float32. A row of zeros stays zeros, so that its similarities are 0. No
        length overflows or vanishes.

    Raises:
        ValueError: if the shape is not (N, D) with D >= 1, or a value is not finite.
        TypeError: if they are not of floating point.

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


def on_grid(similarities: Tensor) -> Tensor:
    """Similarities rounded to multiples of 1 / GRID within [-1, 1], float32, any shape.

    >>> on_grid(torch.tensor([0.5000003, 1.0000001])).tolist()
    [0.5, 1.0]
    """
    return similarities.float().mul(GRID).round_().clamp_(-GRID, GRID).div_(GRID)


@torch.no_grad()
def pair_similarities(unit: Tensor, index: Tensor) -> Tensor:
    """Cosine of each listed pair.

    Args:
        unit: (N, D) as `unit_embeddings` gives them.
        index: (K, 2) integers, rows of ``unit``.

    Returns:
        Tensor: (K,) float32 in [-1, 1], on the grid.

    Raises:
        ValueError: if ``index`` is not (K, 2).
        IndexError: if it names a row that is not there.

    >>> unit = torch.tensor([[1., 0.], [0., 1.], [.6, .8]])
    >>> pair_similarities(unit, torch.tensor([[0, 1], [1, 2]]))
    tensor([0.0000, 0.8000])
    """
    if index.ndim != 2 or index.shape[1] != 2:
        raise ValueError(f'index must be (K, 2), got {tuple(index.shape)}')
    if len(index) and not (int(index.min()) >= 0 and int(index.max()) < len(unit)):
        raise IndexError(
            f'index names rows {int(index.min())} to {int(index.max())}, but there are {len(unit)}'
        )
    parts = [(unit[some[:, 0]] * unit[some[:, 1]]).sum(1) for some in index.split(_PAIRS_AT_ONCE)]
    return on_grid(torch.cat(parts))
