"""Claims of boxes on priors, and the settlement of priors that several boxes claim."""

from __future__ import annotations

import torch
from torch import Tensor

from mmdet_ext.functional.boxes.overlap import pairwise_box_iof
from mmdet_ext.functional.numerics.chunks import row_chunks

__all__ = ['border_distance', 'ignored_priors_mask', 'mark_ignored', 'resolve_claims']

#: Index of a prior without a box.
BACKGROUND = -1

#: Index of a prior that counts neither as positive nor as background.
IGNORE = -2

#: Least `border_distance` of the centre of a positive prior, px.
INSIDE_MARGIN = 0.01


def border_distance(boxes: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Compute the distance of points inside a box to its nearest side.

    Args:
        boxes: (B, G, 4) corners, px.
        x: (B or 1, G or 1, N) px.
        y: as ``x``.

    Returns:
        Tensor: (B, G, N) px; 0 on the border, negative outside.

    >>> x, y = torch.tensor([[[2., 9.]]]), torch.tensor([[[5., 5.]]])
    >>> border_distance(torch.tensor([[[0., 0., 8., 8.]]]), x, y)
    tensor([[[ 2., -1.]]])
    """
    left, top, right, bottom = boxes[..., None].unbind(2)
    gap = x - left
    other = right - x
    torch.minimum(gap, other, out=gap)
    torch.minimum(gap, torch.sub(y, top, out=other), out=gap)
    return torch.minimum(gap, torch.sub(bottom, y, out=other), out=gap)


def ignored_priors_mask(
    priors: Tensor,
    ignore_boxes: Tensor,
    ignore_valid: Tensor,
    threshold: float,
    of_priors: bool = True,
) -> Tensor:
    """Find the anchors that share more than ``threshold`` with an ignore region.

    Args:
        priors: (P, 4) corners, px.
        ignore_boxes: (B, I, 4) corners, px.
        ignore_valid: (B, I) bool, False on padding.
        threshold: share, in [0, 1].
        of_priors: True for the share of the anchor's area that lies in the region, False for the
            share of the region's area that lies in the anchor.

    Returns:
        Tensor: (B, P) bool.

    >>> ignored_priors_mask(torch.tensor([[0., 0., 2., 2.], [4., 4., 6., 6.]]),
    ...                     torch.tensor([[[0., 0., 3., 3.]]]), torch.tensor([[True]]), 0.5)
    tensor([[ True, False]])
    """
    images, regions = ignore_valid.shape
    mask = torch.zeros((images, priors.shape[0]), dtype=torch.bool, device=priors.device)
    for start, stop in row_chunks(priors.shape[0], images * regions * 4):
        part = priors[start:stop]  # shares are (B, chunk, I)
        if of_priors:
            share = pairwise_box_iof(part, ignore_boxes)
        else:
            share = pairwise_box_iof(ignore_boxes, part).mT
        mask[:, start:stop] = ((share > threshold) & ignore_valid[:, None]).any(-1)
    return mask


def resolve_claims(
    candidate: Tensor,
    quality: Tensor,
    positive: Tensor,
    total: int,
    ignore_mask: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Give each prior to the box of best quality that claims it; of equal ones to the first.

    Args:
        candidate: (B, G, K) indices of priors.
        quality: (B, G, K).
        positive: (B, G, K) bool: the box claims the prior.
        total: number of priors P.
        ignore_mask: (B, P) bool, priors that are ignored unless a box has them; None for none.

    Returns:
        tuple: gt_index (B, P), as in `Assignment`; quality (B, P) of that box, 0 without one.
    """
    images, boxes, _ = candidate.shape
    # Candidates that are not claimed write to one slot past the priors.
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
    """Turn background into IGNORE where the mask is True; leave positives as they are.

    Args:
        gt_index: (B, P).
        ignore_mask: (B, P) bool; None for no change.
    """
    if ignore_mask is None:
        return gt_index
    return gt_index.masked_fill(ignore_mask & (gt_index == BACKGROUND), IGNORE)
