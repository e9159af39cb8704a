"""Claims of boxes on priors, and the priors that nothing may claim."""

from __future__ import annotations

import torch
from torch import Tensor

from mmdet_ext.functional.boxes.overlap import pairwise_box_iof
from mmdet_ext.functional.numerics.chunks import row_chunks

BACKGROUND = -1
IGNORE = -2

#: A prior's centre must lie this far inside a box to be its candidate, in px.
INSIDE_MARGIN = 0.01


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
