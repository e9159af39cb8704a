"""Which boxes and priors belong together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from mmdet_ext.functional.boxes import box_centers, box_iou, pairwise_box_iof, promote_half

BACKGROUND = -1
IGNORE = -2

#: Elements of the largest temporary table of boxes x priors; more boxes go in chunks. 2 MiB of
#: float32, so that a table stays in a processor's cache.
TABLE_ELEMENTS = 1 << 19

#: Distances are ranked by blocks of this many first.
BLOCK = 64

#: Stands for "farther than any prior", in px.
FAR = 1e8

#: A prior's centre must lie this far inside a box to be its candidate, in px.
INSIDE_MARGIN = 0.01


class Grid(NamedTuple):
    """Columns xs (W,) and rows ys (H,) whose product is a level's centres, x running faster."""

    xs: Tensor
    ys: Tensor


def find_grid(centers: Tensor) -> Grid | None:
    """Tell whether points (P, 2) are a full grid in row-major order, and give its axes.

    The points of one pyramid level of anchors are, so that the nearest of them are found from
    W + H distances instead of W x H.

    >>> find_grid(torch.tensor([[0., 0.], [8., 0.], [0., 8.], [8., 8.]]))
    Grid(xs=tensor([0., 8.]), ys=tensor([0., 8.]))
    >>> find_grid(torch.tensor([[0., 0.], [8., 0.], [0., 9.], [8., 8.]])) is None
    True
    """
    total = centers.shape[0]
    if total == 0:
        return None
    x, y = centers.T.contiguous()
    # The first row's length, if rows go downwards; anything else fails the comparison below.
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
    """The ``k`` priors of each level whose centres are nearest to each point.

    Where a level is a grid and nothing is excluded, at most about k ln k priors a point are
    looked at; else all distances are taken, in chunks of points.

    Args:
        points: (N, 2), px.
        centers: (P, 2) centres of the priors, level by level, px.
        level_sizes: priors of each level, summing to P.
        k: how many a level; a smaller level gives all it has.
        grids: `find_grid` of each level's centres, None to look for them here.
        excluded_mask: (M, P) with N a multiple of M, one row for each N / M points in a row;
            True puts a prior behind all others of its level.
        valid_mask: (M, P) likewise; False puts a prior behind those too. On a grid of which a
            part of the columns and rows is valid, the nearest are still found by these.

    Returns:
        Tensor: (N, K) int64 indices into the priors, K = sum over levels of min(k, size). Equal
        distances are told apart arbitrarily.

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
    """Which columns (M, W) and rows (M, H) of a grid are valid, if these tell of each point."""
    table = valid.view(len(valid), grid.ys.numel(), grid.xs.numel())
    columns, rows = table.any(1), table.any(2)
    return (columns, rows) if torch.equal(table, rows[..., None] & columns[:, None]) else None


def _far_lines(gap: Tensor, valid: Tensor) -> Tensor:
    """Gaps (N, L), with FAR in the place of lines (M, L) that are not valid."""
    return gap.masked_fill(~valid.repeat_interleave(len(gap) // len(valid), 0), FAR)


def _nearest_on_grid(
    points: Tensor, grid: Grid, k: int, lines: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """Indices (N, k) of the nearest grid points.

    With columns and rows ranked by distance, the point at ranks (a, b), from 0, has at least
    (a + 1)(b + 1) - 1 points no farther than itself. So the k nearest have (a + 1)(b + 1) <= k:
    23 pairs of ranks for k = 9.
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
    """Indices (N, k) of the nearest centres, from all distances.

    The k smallest of a row lie in the k blocks of smallest minimum, so that only these blocks'
    distances are ranked.
    """
    count = centers.shape[0]
    x, y = pad(centers.T, (0, -count % BLOCK), value=torch.inf)
    row = torch.arange(points.shape[0], device=points.device)
    found = []
    for start, stop in chunks(points.shape[0], x.numel()):
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


def largest(table: Tensor, k: int) -> Tensor:
    """Places (R, k) of the k largest values of each row of (R, N), the largest first.

    They lie in the k blocks of largest maximum, so that only these blocks' values are ranked.

    >>> largest(torch.tensor([[3., 1., 7.]]), 2)
    tensor([[2, 0]])
    """
    rows, columns = table.shape
    if columns <= BLOCK * (k + 1):
        few: Tensor = table.topk(k).indices
        return few
    whole = columns // BLOCK * BLOCK
    blocks = table[:, :whole].unflatten(1, (-1, BLOCK))
    block = blocks.amax(-1).topk(min(k, whole // BLOCK)).indices
    ranked = blocks.gather(1, block[..., None].expand(-1, -1, BLOCK)).flatten(1)
    # The rest that fills no block is ranked as it is.
    place = torch.cat([ranked, table[:, whole:]], 1).topk(k).indices
    inner: Tensor = block.gather(1, (place // BLOCK).clamp(max=block.shape[1] - 1)) * BLOCK
    inner = inner + place % BLOCK
    return inner.where(place < ranked.shape[1], place - ranked.shape[1] + whole)


def chunks(rows: int, columns: int) -> list[tuple[int, int]]:
    """Row ranges whose tables of ``columns`` columns keep within TABLE_ELEMENTS."""
    step = max(1, TABLE_ELEMENTS // max(1, columns))
    return [(start, min(start + step, rows)) for start in range(0, rows, step)]


def ignored_priors_mask(
    priors: Tensor,
    ignore_boxes: Tensor,
    ignore_valid: Tensor,
    threshold: float,
    of_priors: bool = True,
) -> Tensor:
    """Priors of which more than ``threshold`` lies in an ignore region.

    Args:
        priors: (P, 4) corners, px.
        ignore_boxes: (B, I, 4) corners, px.
        ignore_valid: (B, I) bool, False on padding.
        threshold: share of a prior's area, in [0, 1].
        of_priors: otherwise, share of the region's area that lies in the prior.

    Returns:
        Tensor: (B, P) bool.

    >>> ignored_priors_mask(torch.tensor([[0., 0., 2., 2.], [4., 4., 6., 6.]]),
    ...                     torch.tensor([[[0., 0., 3., 3.]]]), torch.tensor([[True]]), 0.5)
    tensor([[ True, False]])
    """
    images, regions = ignore_valid.shape
    mask = torch.zeros((images, priors.shape[0]), dtype=torch.bool, device=priors.device)
    for start, stop in chunks(priors.shape[0], images * regions * 4):
        part = priors[start:stop]  # shares are (B, chunk, I)
        if of_priors:
            share = pairwise_box_iof(part, ignore_boxes)
        else:
            share = pairwise_box_iof(ignore_boxes, part).mT
        mask[:, start:stop] = ((share > threshold) & ignore_valid[:, None]).any(-1)
    return mask


#: How well a box fits a prior: (prior_index (B, G, K), gt_boxes (B, G, 4)) -> (B, G, K).
Affinity = Callable[[Tensor, Tensor], Tensor]


def atss_match(
    priors: Tensor,
    level_sizes: Sequence[int],
    gt_boxes: Tensor,
    gt_valid: Tensor,
    topk: int = 9,
    grids: Sequence[Grid | None] | None = None,
    ignore_mask: Tensor | None = None,
    affinity: Affinity | None = None,
    prior_valid: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Adaptive training sample selection (ATSS).

    For each box, the ``topk`` priors of each level whose centres are nearest to the box's centre
    are its candidates. With m and s the mean and the (unbiased) standard deviation of the
    candidates' IoUs, the candidates of IoU >= m + s whose centre lies in the box are its
    positives; of one candidate s is 0. A prior claimed by several boxes goes to that of the
    largest IoU.

    Only the candidates' IoUs are ever computed. Nothing loops over images or boxes.

    Args:
        priors: (P, 4) corners, px, level by level, shared by the images.
        level_sizes: priors of each level, summing to P.
        gt_boxes: (B, G, 4) corners, px; half precision is computed in float32.
        gt_valid: (B, G) bool, False on padding.
        topk: candidates a level.
        grids: `find_grid` of each level's centres, None to look for them here.
        ignore_mask: (B, P), True for priors in ignore regions: they come last as candidates and
            are IGNORE unless a box claims them all the same.
        affinity: used in place of the IoU.
        prior_valid: (B, P), False for priors that are no candidates at all, and IGNORE; None for
            none.

    Returns:
        tuple: gt_index (B, P) int64, BACKGROUND (-1) and IGNORE (-2) beside the index of a box;
        overlap (B, P), the affinity with that box, 0 where there is none.

    References:
        Zhang et al., Bridging the Gap Between Anchor-based and Anchor-free Detection via
        Adaptive Training Sample Selection, 2020, algorithm 1.
    """
    priors, gt_boxes = promote_half(priors, gt_boxes)
    images, boxes = gt_valid.shape
    total = priors.shape[0]
    if boxes == 0 or total == 0:
        claimed = torch.full((images, total), BACKGROUND, device=gt_boxes.device)
        claimed = mark_ignored(claimed, _either(ignore_mask, prior_valid))
        return claimed, gt_boxes.new_zeros((images, total))

    centers = box_centers(priors)
    points = box_centers(gt_boxes).flatten(0, 1)
    candidate = nearest_priors(
        points, centers, level_sizes, topk, grids, ignore_mask, prior_valid
    )
    candidate = candidate.view(images, boxes, -1)

    if affinity is None:
        quality = box_iou(priors[candidate], gt_boxes[:, :, None])
    else:
        quality = affinity(candidate, gt_boxes)
    valid = None
    if prior_valid is not None:
        valid = prior_valid.gather(1, candidate.flatten(1)).view(candidate.shape)
    threshold = _mean_and_spread(quality, valid)

    center = centers[candidate]
    inside = torch.cat(
        [center - gt_boxes[:, :, None, :2], gt_boxes[:, :, None, 2:] - center], dim=-1
    ).amin(-1)
    positive = (quality >= threshold[..., None]) & (inside > INSIDE_MARGIN)
    positive &= gt_valid[..., None]
    if valid is not None:
        positive &= valid
    return resolve_claims(
        candidate, quality, positive, total, _either(ignore_mask, prior_valid)
    )


def _mean_and_spread(quality: Tensor, valid: Tensor | None) -> Tensor:
    """Mean plus deviation of the candidates' qualities (B, G, K), of those that are valid."""
    # Reduced over a leading dimension, as a table of candidates x boxes would be.
    table = quality.permute(2, 0, 1).contiguous()
    if valid is None or bool(valid.all()):
        return table.mean(0) + (table.std(0) if len(table) > 1 else 0.0)
    # In double precision: equal qualities have a spread of 0, however many there are.
    counted = valid.permute(2, 0, 1).double()
    number = counted.sum(0)
    mean = (table * counted).sum(0) / number
    spread = ((table - mean).square() * counted).sum(0) / (number - 1).clamp(min=1)
    return mean.to(quality.dtype) + spread.sqrt().to(quality.dtype)


def _either(ignore_mask: Tensor | None, prior_valid: Tensor | None) -> Tensor | None:
    """Priors that are ignored, or not there."""
    if prior_valid is None:
        return ignore_mask
    return ~prior_valid if ignore_mask is None else ignore_mask | ~prior_valid


def resolve_claims(
    candidate: Tensor,
    quality: Tensor,
    positive: Tensor,
    total: int,
    ignore_mask: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Give each prior to the positive box of best quality; the first of equals.

    Args:
        candidate: (B, G, K) indices of priors.
        quality: (B, G, K).
        positive: (B, G, K) bool: the box claims the prior.
        total: P.
        ignore_mask: (B, P) or None.

    Returns:
        tuple: gt_index (B, P), overlap (B, P).
    """
    images, boxes, _ = candidate.shape
    # Claims that do not count go to one slot past the priors.
    slot = torch.where(positive, candidate, total).flatten(1)
    best = quality.new_full((images, total + 1), -torch.inf)
    best.scatter_reduce_(1, slot, quality.flatten(1), 'amax')
    wins = positive.flatten(1) & (quality.flatten(1) == best.gather(1, slot))
    box_index = torch.arange(boxes, device=candidate.device)[:, None].expand(candidate.shape[1:])
    slot = torch.where(wins, slot, total)
    gt_index = torch.full((images, total + 1), boxes, device=candidate.device)
    gt_index.scatter_reduce_(1, slot, box_index.flatten().expand(images, -1), 'amin')
    gt_index = gt_index[:, :total]
    claimed = gt_index < boxes
    gt_index = gt_index.where(claimed, BACKGROUND)
    return mark_ignored(gt_index, ignore_mask), best[:, :total].where(claimed, 0.0)


def mark_ignored(gt_index: Tensor, ignore_mask: Tensor | None) -> Tensor:
    if ignore_mask is None:
        return gt_index
    return gt_index.masked_fill(ignore_mask & (gt_index == BACKGROUND), IGNORE)
