"""Regular grids of priors, and the priors nearest to a point."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from mmdet_ext.functional.numerics.chunks import BLOCK, row_chunks

__all__ = ['Grid', 'find_grid', 'nearest_priors']

#: Distance that is larger than that of any prior, px.
FAR = 1e8


class Grid(NamedTuple):
    """Axes of a level's centres in row-major order.

    Attributes:
        xs: (W,) x of the columns, px.
        ys: (H,) y of the rows, px.
    """

    xs: Tensor
    ys: Tensor


def find_grid(centers: Tensor) -> Grid | None:
    """Find the axes of points that form a full grid in row-major order.

    The centres of one level of anchors form such a grid, so that the nearest of them are found
    from W + H distances instead of W x H.

    Args:
        centers: (P, 2) px.

    Returns:
        Grid | None: None where the points form no such grid.

    >>> find_grid(torch.tensor([[0., 0.], [8., 0.], [0., 8.], [8., 8.]]))
    Grid(xs=tensor([0., 8.]), ys=tensor([0., 8.]))
    >>> find_grid(torch.tensor([[0., 0.], [8., 0.], [0., 9.], [8., 8.]])) is None
    True
    """
    total = centers.shape[0]
    if total == 0:
        return None
    x, y = centers.T.contiguous()
    # Length of the first row, if rows go downwards; any other order fails the comparison below.
    width = int(torch.searchsorted(y, y[:1], right=True))
    if width == 0 or total % width:
        return None
    x, y = x.view(-1, width), y.view(-1, width)
    if not (torch.equal(x, x[:1].expand_as(x)) and torch.equal(y, y[:, :1].expand_as(y))):
        return None
    return Grid(x[0], y[:, 0])


def nearest_priors(
    points: Tensor,
    centers: Tensor,
    level_sizes: Sequence[int],
    k: int,
    grids: Sequence[Grid | None] | None = None,
    excluded_mask: Tensor | None = None,
    valid_mask: Tensor | None = None,
) -> Tensor:
    """Find the ``k`` priors of each level whose centres are nearest to each point.

    Where a level is a grid and no prior is excluded, about k ln k priors per point are compared at
    most. Otherwise all distances are computed, in chunks of points.

    Args:
        points: (N, 2), px.
        centers: (P, 2) centres of the priors, level by level, px.
        level_sizes: number of priors of each level, summing to P.
        k: number per level; a smaller level gives all its priors.
        grids: `find_grid` of each level's centres; None to find them here.
        excluded_mask: (M, P) bool, with N a multiple of M and one row for each N / M consecutive
            points. True puts a prior behind all others of its level.
        valid_mask: (M, P) bool, in the same layout. False puts a prior behind the excluded ones
            too. On a grid where whole columns and rows are not valid, the fast way is kept.

    Returns:
        Tensor: (N, K) int64 indices of priors, K = sum over levels of min(k, size). The order of
        equal distances is arbitrary.

    >>> centers = torch.tensor([[0., 0.], [8., 0.], [0., 8.], [8., 8.]])
    >>> nearest_priors(torch.tensor([[7., 1.]]), centers, [4], k=1)
    tensor([[1]])
    """
    found = []
    for level, level_centers in enumerate(centers.split(list(level_sizes))):
        start = sum(level_sizes[:level])
        stop = start + level_sizes[level]
        level_k = min(k, level_sizes[level])
        grid, lines = None, None
        valid = None if valid_mask is None else valid_mask[:, start:stop]
        if excluded_mask is None:
            grid = find_grid(level_centers) if grids is None else grids[level]
        if grid is not None and valid is not None:
            lines = _valid_lines(valid, grid)
            grid = None if lines is None else grid
        if grid is not None:
            index = _nearest_on_grid(points, grid, level_k, lines)
        else:
            mask = None if excluded_mask is None else excluded_mask[:, start:stop]
            index = _nearest_of_all(points, level_centers, level_k, mask, valid)
        found.append(index + start)
    return torch.cat(found, dim=1)


def _valid_lines(valid: Tensor, grid: Grid) -> tuple[Tensor, Tensor] | None:
    """Return the valid columns (M, W) and rows (M, H), or None where these do not suffice."""
    table = valid.view(len(valid), grid.ys.numel(), grid.xs.numel())
    columns, rows = table.any(1), table.any(2)
    return (columns, rows) if torch.equal(table, rows[..., None] & columns[:, None]) else None


def _far_lines(gap: Tensor, valid: Tensor) -> Tensor:
    """Return gaps (N, L) with FAR for the lines (M, L) that are not valid."""
    return gap.masked_fill(~valid.repeat_interleave(len(gap) // len(valid), 0), FAR)


def _nearest_on_grid(
    points: Tensor, grid: Grid, k: int, lines: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """Find the indices (N, k) of the nearest grid points.

    With columns and rows ranked by distance from 0 on, at least (a + 1)(b + 1) - 1 points are no
    farther than the one at ranks (a, b). So the k nearest have (a + 1)(b + 1) <= k, which are 23
    pairs of ranks for k = 9.
    """
    width, height = grid.xs.numel(), grid.ys.numel()
    k_x, k_y = min(k, width), min(k, height)
    gap_x, gap_y = (points[:, :1] - grid.xs).abs(), (points[:, 1:] - grid.ys).abs()
    if lines is not None:
        gap_x, gap_y = _far_lines(gap_x, lines[0]), _far_lines(gap_y, lines[1])
    gap_x, column = gap_x.topk(k_x, largest=False)
    gap_y, row = gap_y.topk(k_y, largest=False)
    ranks = [(a, b) for a in range(k_x) for b in range(min(k_y, k // (a + 1)))]
    rank = torch.tensor(ranks, device=points.device).T
    distance = gap_x.square()[:, rank[0]] + gap_y.square()[:, rank[1]]
    nearest = distance.topk(k, largest=False).indices
    return row.gather(1, rank[1][nearest]) * width + column.gather(1, rank[0][nearest])


def _nearest_of_all(
    points: Tensor, centers: Tensor, k: int, mask: Tensor | None, valid: Tensor | None
) -> Tensor:
    """Find the indices (N, k) of the nearest centres from all distances.

    The k smallest distances of a row lie in the k blocks of smallest minimum, so that only the
    distances of these blocks are ranked.
    """
    count = centers.shape[0]
    x, y = pad(centers.T, (0, -count % BLOCK), value=torch.inf)
    row = torch.arange(points.shape[0], device=points.device)
    found = []
    for start, stop in row_chunks(points.shape[0], x.numel()):
        chunk = points[start:stop]
        distance = (chunk[:, :1] - x).square_().add_((chunk[:, 1:] - y).square_())
        for level, each in ((FAR**2, mask), (4 * FAR**2, None if valid is None else ~valid)):
            if each is not None:
                chunk_mask = each[row[start:stop] * len(each) // len(row)]
                distance[:, :count].masked_fill_(chunk_mask, level)
        blocks = distance.unflatten(1, (-1, BLOCK))
        block = blocks.amin(-1).topk(min(k, blocks.shape[1]), largest=False).indices
        ranked = blocks.gather(1, block[..., None].expand(-1, -1, BLOCK)).flatten(1)
        place = ranked.topk(k, largest=False).indices
        index = block.gather(1, place // BLOCK) * BLOCK + place % BLOCK
        found.append(index.clamp(max=count - 1))  # a NaN point has padding among its nearest
    if not found:
        return torch.empty((0, k), dtype=torch.int64, device=centers.device)
    return torch.cat(found)
