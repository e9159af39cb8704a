"""Receptive fields as Gaussians, and the boxes they fit best (RFLA)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from mmdet_ext.functional.assignment.claims import BACKGROUND, IGNORE
from mmdet_ext.functional.numerics.chunks import largest_places, row_chunks
from mmdet_ext.functional.numerics.precision import promote_half

#: Theoretical receptive fields of ResNet-50 with a feature pyramid, P2 to P7, px, as RFLA's
#: authors count them.
RESNET50_FPN_FIELDS = (35.0, 91.0, 267.0, 427.0, 555.0, 811.0)

#: How far a field is from a box: Kullback-Leibler divergence or Wasserstein distance.
Distance = Literal['kl', 'wasserstein']

#: Who has a field that several boxes claim: the nearest box, or the last in the order.
Shared = Literal['nearest', 'last']

#: Shorter sides count as this, px. The authors add 1e-6 instead; then a box of a hundredth of a
#: pixel is so far from all fields that, in float32, a whole column of them is equally far.
LEAST_SIDE = 1.0

#: Tables of boxes x priors that are held at once.
TABLES = 4


def effective_fields(
    points: Tensor, levels: Tensor, receptive_fields: Sequence[float], fraction: float = 0.5
) -> Tensor:
    """Boxes around points, of the size of their level's effective receptive field.

    Args:
        points: (P, 2 or more), x and y leading, px.
        levels: (P,) int64, index into ``receptive_fields``.
        receptive_fields: side of each level's theoretical field, px.
        fraction: share of that side that is effective.

    Returns:
        Tensor: (P, 4) corners, px, of at least float32.

    >>> effective_fields(torch.tensor([[4., 4.]]), torch.tensor([1]), (8., 16.))
    tensor([[0., 0., 8., 8.]])

    References:
        Xu et al., RFLA: Gaussian Receptive Field based Label Assignment for Tiny Object
        Detection, 2022, section 3.2.
    """
    (points,) = promote_half(points)
    half = points.new_tensor([field * fraction / 2 for field in receptive_fields])[levels, None]
    return torch.cat([points[:, :2] - half, points[:, :2] + half], dim=1)


def field_similarity(fields: Tensor, boxes: Tensor, distance: Distance = 'kl') -> Tensor:
    r"""How well receptive fields fit boxes, both taken as Gaussians: ``1 / (1 + D)``.

    A box of centre x, y and sides w, h is a Gaussian of standard deviations w / 2 and h / 2. With
    the field's written with a dash, D is the divergence of the field from the box,

    .. math::
        D_{KL} = \frac{1}{2} \left(\frac{w'^2 + 4 (x - x')^2}{w^2} + \frac{h'^2 + 4 (y - y')^2}
            {h^2} + \ln \frac{w^2 h^2}{w'^2 h'^2} - 2\right)

    or the square of their distance,

    .. math::
        W^2 = (x - x')^2 + (y - y')^2 + \frac{(w - w')^2 + (h - h')^2}{4}

    Args:
        fields: (..., 4) corners, px; half precision is computed in float32.
        boxes: (..., 4) corners, px, broadcastable with ``fields``. Sides below 1 px count as
            1 px, the fields' too.
        distance: 'kl' or 'wasserstein'.

    Returns:
        Tensor: (...), in [0, 1]; 1 where they are equal.

    >>> field = torch.tensor([0., 0., 2., 2.])
    >>> field_similarity(field, torch.tensor([1., 0., 3., 2.]), 'wasserstein')
    tensor(0.5000)
    >>> field_similarity(field, torch.tensor([1., 0., 3., 2.]))
    tensor(0.6667)

    One px apart: W^2 is 1, and the divergence 4 / (2 * 2**2).

    References:
        Xu et al., RFLA: Gaussian Receptive Field based Label Assignment for Tiny Object
        Detection, 2022, section 3.3: equations 5 (Wasserstein), 6 and 7 (divergence), 8.
    """
    fields, boxes = promote_half(fields, boxes)
    return _similarity(_gaussians(fields), _gaussians(boxes), distance)


class _Gaussians(NamedTuple):
    """Centres and sides of boxes (...,) each, px."""

    x: Tensor
    y: Tensor
    w: Tensor
    h: Tensor

    def of_rows(self, start: int, stop: int) -> _Gaussians:
        """Those of some boxes (B, g), to be laid against priors: (B, g, 1)."""
        return _Gaussians(*(part[:, start:stop, None] for part in self))


def _gaussians(boxes: Tensor, scale: float = 1.0) -> _Gaussians:
    """Of boxes (..., 4), their sides ``scale`` times as long."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    w, h = (x2 - x1) * scale, (y2 - y1) * scale
    return _Gaussians(
        (x1 + x2) / 2, (y1 + y2) / 2, w.clamp(min=LEAST_SIDE), h.clamp(min=LEAST_SIDE)
    )


def _similarity(field: _Gaussians, box: _Gaussians, distance: Distance) -> Tensor:
    """The table that both broadcast to, with two more beside it."""
    across, along = (field.x - box.x).square_(), (field.y - box.y).square_()
    if distance == 'wasserstein':
        across.add_(along)
        along = torch.sub(field.w, box.w, out=along).square_()
        across.add_(along, alpha=0.25)
        along = torch.sub(field.h, box.h, out=along).square_()
        return across.add_(along, alpha=0.25).add_(1).reciprocal_()
    across.mul_(4).add_(field.w.square()).div_(box.w.square())
    along.mul_(4).add_(field.h.square()).div_(box.h.square())
    # Logarithms of sides, not of their quotients: one a box and one a field.
    across.add_(along).add_(2 * (box.w.log() + box.h.log()) - 2)
    across.sub_(2 * (field.w.log() + field.h.log()))
    return across.mul_(0.5).clamp_(min=0).add_(1).reciprocal_()


class _Claims(NamedTuple):
    """What one ranking gives, (B, P) each.

    Attributes:
        owner: the box that has the prior, -1 for none.
        similarity: that of the owner, 0 without one.
        best: the largest with any box, 0 without boxes.
    """

    owner: Tensor
    similarity: Tensor
    best: Tensor


def hierarchical_match(
    fields: Tensor,
    gt_boxes: Tensor,
    gt_valid: Tensor,
    topk: int = 3,
    topk_decayed: int = 1,
    decay: float = 0.9,
    distance: Distance = 'kl',
    shared: Shared = 'nearest',
    ignore_thr: float | None = 0.8,
    prior_valid: Tensor | None = None,
    ignore_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Give each box its nearest receptive fields, however small it is (RFLA).

    First each box claims the ``topk`` fields of largest `field_similarity`, with all that equal
    the last of them. Then the fields shrink to ``decay`` times their sides and each box claims
    ``topk_decayed`` of all of them again; of these it has those that nobody had before. So it may
    gain none. Of the rest, fields whose shrunken similarity with some box is at least
    ``ignore_thr`` are ignored.

    Where several boxes claim a field in one ranking, it is the nearest's, of equal ones the
    first's. The authors' code gives it to the last, which goes by the order of the boxes:
    ``shared='last'``. Their code shrinks the priors that the head goes on with, too; here they
    stay as they are.

    Args:
        fields: (P, 4) corners of effective receptive fields, px, shared by the images.
        gt_boxes: (B, G, 4) corners, px; half precision is computed in float32.
        gt_valid: (B, G) bool, False on padding.
        topk: fields a box in the first ranking, at least 1.
        topk_decayed: likewise in the second.
        decay: above 0, at most 1.
        distance: 'kl' or 'wasserstein'.
        shared: who has a field that several claim: the 'nearest', or the 'last'.
        ignore_thr: in [0, 1]; None to ignore none.
        prior_valid: (B, P) bool, False for fields that are nobody's and IGNORE; None for none.
        ignore_mask: (B, P) bool, True for fields that are nobody's and IGNORE; None for none.

    Returns:
        tuple: gt_index (B, P) int64, BACKGROUND (-1) and IGNORE (-2) beside the index of a box;
        overlap (B, P), the similarity in the ranking that gave the box, 0 where there is none.

    >>> fields = torch.tensor([[0., 0., 8., 8.], [8., 0., 16., 8.], [40., 0., 48., 8.]])
    >>> boxes = torch.tensor([[[3., 2., 7., 6.]]])
    >>> hierarchical_match(fields, boxes, torch.tensor([[True]]), topk=2)[0]
    tensor([[ 0,  0, -1]])

    References:
        Xu et al., RFLA: Gaussian Receptive Field based Label Assignment for Tiny Object
        Detection, 2022, section 3.4 and equation 9, and the authors' code,
        https://github.com/Chasel-Tsui/mmdet-rfla, hierarchical_assigner.py.
    """
    fields, gt_boxes = promote_half(fields, gt_boxes)
    images, boxes = gt_valid.shape
    unused = None if prior_valid is None else ~prior_valid
    if ignore_mask is not None:
        unused = ignore_mask if unused is None else unused | ignore_mask
    if boxes == 0 or fields.shape[0] == 0:
        shape = images, fields.shape[0]
        gt_index = torch.full(shape, BACKGROUND, device=gt_boxes.device)
        overlap = gt_boxes.new_zeros(shape)
    else:
        box = _gaussians(gt_boxes)
        ranked = [
            _rank(_gaussians(fields, scale), box, gt_valid, k, distance, shared, unused)
            for scale, k in ((1.0, topk), (decay, topk_decayed))
        ]
        first, second = ranked
        gt_index = first.owner.where(first.owner >= 0, second.owner)
        overlap = first.similarity.where(first.owner >= 0, second.similarity)
        if ignore_thr is not None:
            near = (gt_index == BACKGROUND) & (second.best >= ignore_thr)
            gt_index = gt_index.masked_fill(near & gt_valid.any(1, keepdim=True), IGNORE)
    if unused is not None:
        gt_index = gt_index.masked_fill(unused, IGNORE)
    return gt_index, overlap


def _rank(
    field: _Gaussians,
    box: _Gaussians,
    gt_valid: Tensor,
    k: int,
    distance: Distance,
    shared: Shared,
    unused: Tensor | None,
) -> _Claims:
    """One ranking of all fields by each box, some boxes at a time."""
    images, boxes = gt_valid.shape
    total = field.x.shape[0]
    owner = torch.full((images, total), -1, device=gt_valid.device)
    similarity = field.x.new_full((images, total), -1.0)
    best = field.x.new_zeros((images, total))
    for start, stop in row_chunks(boxes, images * total * TABLES):
        table = _similarity(field, box.of_rows(start, stop), distance)
        # What cannot be claimed is below all that can.
        table.masked_fill_(~gt_valid[:, start:stop, None], -1.0)
        if unused is not None:
            table.masked_fill_(unused[:, None], -1.0)
        best = torch.maximum(best, table.amax(1))
        rows = table.flatten(0, 1)
        least = rows.gather(1, largest_places(rows, min(k, total)))[:, -1].view(images, -1, 1)
        claimed = table.masked_fill_(table < least.clamp(min=0), -1.0)
        place = torch.arange(start, stop, device=owner.device)[:, None]
        if shared == 'nearest':
            top = claimed.amax(1)
            found = place.where(claimed == top[:, None], boxes).amin(1)
            better = top > similarity
        else:
            found = place.where(claimed >= 0, -1).amax(1)
            top = claimed.gather(1, (found - start).clamp(min=0)[:, None])[:, 0]
            better = found >= 0
        owner, similarity = found.where(better, owner), top.where(better, similarity)
    return _Claims(owner, similarity.clamp(min=0), best)
