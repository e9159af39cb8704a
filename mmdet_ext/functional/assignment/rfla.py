"""Assignment of receptive fields as Gaussians, for tiny objects (RFLA).

1. Take boxes and receptive fields as Gaussians, and compute how similar they are.
2. Each box claims the fields of largest similarity. A field that several boxes claim goes to the
   nearest of them, or to the last.
3. Shrink the fields, let each box claim again from all of them, and add the claims on fields that
   had no box.
4. Ignore the remaining fields whose shrunken similarity with some box is large.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from mmdet_ext.functional.assignment.assignment import Assignment, assign_nothing
from mmdet_ext.functional.assignment.claims import BACKGROUND, IGNORE, mark_ignored
from mmdet_ext.functional.assignment.geometry import BatchGeometry, Priors
from mmdet_ext.functional.numerics.chunks import largest_places, row_chunks
from mmdet_ext.functional.numerics.precision import promote_half

__all__ = [
    'FieldDistance',
    'SharedField',
    'effective_fields',
    'field_similarity',
    'hierarchical_match',
]

#: Theoretical receptive fields of ResNet-50 with a feature pyramid, P2 to P7, px, as RFLA's
#: authors compute them.
RESNET50_FPN_FIELDS = (35.0, 91.0, 267.0, 427.0, 555.0, 811.0)

#: Distance of a field from a box: Kullback-Leibler divergence or Wasserstein distance.
FieldDistance = Literal['kl', 'wasserstein']

#: Box that gets a field which several boxes claim: the nearest, or the last in their order.
SharedField = Literal['nearest', 'last']

#: Shorter sides count as this, px. The authors add 1e-6 instead; then a box of a hundredth of a
#: pixel is so far from all fields that, in float32, a whole column of them is equally far.
LEAST_SIDE = 1.0

#: Number of tables of boxes x priors that are held at once.
TABLES = 4


def effective_fields(
    priors: Priors, receptive_fields: Sequence[float], fraction: float = 0.5
) -> Priors:
    """Return boxes around the priors' centres, of the size of the level's effective field.

    Args:
        priors: level by level, or points whose strides distinguish the levels.
        receptive_fields: side of the theoretical receptive field of each level, px.
        fraction: share of that side that is effective.

    Returns:
        Priors: corners, of at least float32, in the same order and levels.

    Raises:
        ValueError: if there are more or fewer levels than ``receptive_fields``.

    >>> points = Priors(points=torch.tensor([[4., 4.]]), strides=torch.tensor([[8., 8.]]))
    >>> effective_fields(points, (16.,)).corners
    tensor([[0., 0., 8., 8.]])

    References:
        Xu et al., RFLA: Gaussian Receptive Field based Label Assignment for Tiny Object
        Detection, 2022, section 3.2.
    """
    levels = priors.level_index(len(receptive_fields))
    centers = priors.centers
    half = centers.new_tensor([field * fraction / 2 for field in receptive_fields])[levels, None]
    corners = torch.cat([centers - half, centers + half], dim=1)
    return Priors(corners=corners, level_sizes=priors.level_sizes)


def field_similarity(fields: Tensor, boxes: Tensor, distance: FieldDistance = 'kl') -> Tensor:
    r"""Compute how well receptive fields fit boxes, both taken as Gaussians: ``1 / (1 + D)``.

    A box of centre x, y and sides w, h is a Gaussian of standard deviations w / 2 and h / 2. With
    the field's values written with a dash, D is the divergence of the field from the box,

    .. math::
        D_{KL} = \frac{1}{2} \left(\frac{w'^2 + 4 (x - x')^2}{w^2} + \frac{h'^2 + 4 (y - y')^2}
            {h^2} + \ln \frac{w^2 h^2}{w'^2 h'^2} - 2\right)

    or the square of their distance,

    .. math::
        W^2 = (x - x')^2 + (y - y')^2 + \frac{(w - w')^2 + (h - h')^2}{4}

    Args:
        fields: (..., 4) corners, px; half precision is computed in float32.
        boxes: (..., 4) corners, px, broadcastable with ``fields``. Sides below 1 px count as
            1 px, those of the fields too.
        distance: 'kl' or 'wasserstein'.

    Returns:
        Tensor: (...), in [0, 1]; 1 where they are equal.

    >>> field = torch.tensor([0., 0., 2., 2.])
    >>> field_similarity(field, torch.tensor([1., 0., 3., 2.]), 'wasserstein')
    tensor(0.5000)
    >>> field_similarity(field, torch.tensor([1., 0., 3., 2.]))
    tensor(0.6667)

    They are 1 px apart: W^2 is 1, and the divergence 4 / (2 * 2**2).

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
        """Return the boxes from ``start`` to before ``stop`` as (B, g, 1), to pair with priors."""
        return _Gaussians(*(part[:, start:stop, None] for part in self))


def _gaussians(boxes: Tensor, scale: float = 1.0) -> _Gaussians:
    """Return boxes (..., 4) as Gaussians, with their sides ``scale`` times as long."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    w, h = (x2 - x1) * scale, (y2 - y1) * scale
    return _Gaussians(
        (x1 + x2) / 2, (y1 + y2) / 2, w.clamp(min=LEAST_SIDE), h.clamp(min=LEAST_SIDE)
    )


def _similarity(field: _Gaussians, box: _Gaussians, distance: FieldDistance) -> Tensor:
    """Compute the table that both broadcast to; two more of its size are held meanwhile."""
    across, along = (field.x - box.x).square_(), (field.y - box.y).square_()
    if distance == 'wasserstein':
        across.add_(along)
        along = torch.sub(field.w, box.w, out=along).square_()
        across.add_(along, alpha=0.25)
        along = torch.sub(field.h, box.h, out=along).square_()
        return across.add_(along, alpha=0.25).add_(1).reciprocal_()
    across.mul_(4).add_(field.w.square()).div_(box.w.square())
    along.mul_(4).add_(field.h.square()).div_(box.h.square())
    # Logarithms of sides, not of quotients: as many as boxes and fields, not as pairs.
    across.add_(along).add_(2 * (box.w.log() + box.h.log()) - 2)
    across.sub_(2 * (field.w.log() + field.h.log()))
    return across.mul_(0.5).clamp_(min=0).add_(1).reciprocal_()


class _Claims(NamedTuple):
    """Outcome of one ranking, (B, P) each.

    Attributes:
        owner: box that gets the field, -1 for none.
        similarity: that of the owner, 0 without one.
        best: the largest with any box, 0 without boxes.
    """

    owner: Tensor
    similarity: Tensor
    best: Tensor


def hierarchical_match(
    geometry: BatchGeometry,
    topk: int = 3,
    topk_decayed: int = 1,
    decay: float = 0.9,
    distance: FieldDistance = 'kl',
    shared: SharedField = 'nearest',
    ignore_thr: float | None = 0.8,
    ignore_mask: Tensor | None = None,
) -> Assignment:
    """Assign to each box its nearest receptive fields, however small the box is (RFLA).

    First each box claims the ``topk`` fields of largest `field_similarity`, and all that equal the
    last of them. Then the fields shrink to ``decay`` times their sides, and each box claims
    ``topk_decayed`` of all of them again. Of these it gets the fields that had no box before, which
    may be none. Of the rest, fields whose shrunken similarity with some box is at least
    ``ignore_thr`` are ignored.

    A field that several boxes claim in one ranking goes to the nearest, of equal ones to the
    first. In the authors' code it goes to the last, so that the result depends on the order of the
    boxes: ``shared='last'``. Their code also shrinks the priors with which the head goes on; here
    the priors are unchanged.

    Args:
        geometry: priors as corners of effective receptive fields (`effective_fields`); half
            precision is computed in float32.
        topk: fields that a box claims in the first ranking, at least 1.
        topk_decayed: fields that a box claims in the second ranking, at least 1.
        decay: above 0, at most 1.
        distance: 'kl' or 'wasserstein'.
        shared: box that gets a field which several claim: the 'nearest', or the 'last'.
        ignore_thr: in [0, 1]; None to ignore none.
        ignore_mask: (B, P) bool, fields that get no box and are ignored; None for none.

    Returns:
        Assignment: ``overlap`` is the similarity in the ranking that gave the box.

    >>> corners = torch.tensor([[0., 0., 8., 8.], [8., 0., 16., 8.], [40., 0., 48., 8.]])
    >>> box, label = torch.tensor([[3., 2., 7., 6.]]), torch.tensor([0])
    >>> geometry = BatchGeometry.from_lists(Priors(corners=corners), [box], [label])
    >>> hierarchical_match(geometry, topk=2).gt_index
    tensor([[ 0,  0, -1]])

    References:
        Xu et al., RFLA: Gaussian Receptive Field based Label Assignment for Tiny Object
        Detection, 2022, section 3.4 and equation 9, and the authors' code,
        https://github.com/Chasel-Tsui/mmdet-rfla, hierarchical_assigner.py.
    """
    fields, gt_boxes = promote_half(geometry.priors.as_corners(), geometry.gt_boxes)
    _, boxes, total = geometry.shape
    if boxes == 0 or total == 0:
        return assign_nothing(geometry, gt_boxes, ignore_mask)
    unused = geometry.unused_priors(ignore_mask)
    gt_valid = geometry.gt_valid

    # 1. Gaussians.
    box = _gaussians(gt_boxes)

    # 2. and 3. The two rankings.
    first, second = (
        _rank(_gaussians(fields, scale), box, gt_valid, k, distance, shared, unused)
        for scale, k in ((1.0, topk), (decay, topk_decayed))
    )
    gt_index = first.owner.where(first.owner >= 0, second.owner)
    overlap = first.similarity.where(first.owner >= 0, second.similarity)

    # 4. Ignored fields.
    if ignore_thr is not None:
        near = (gt_index == BACKGROUND) & (second.best >= ignore_thr)
        gt_index = gt_index.masked_fill(near & gt_valid.any(1, keepdim=True), IGNORE)
    return Assignment(mark_ignored(gt_index, unused), overlap)


def _rank(
    field: _Gaussians,
    box: _Gaussians,
    gt_valid: Tensor,
    k: int,
    distance: FieldDistance,
    shared: SharedField,
    unused: Tensor | None,
) -> _Claims:
    """Let each box claim its ``k`` nearest fields, some boxes at a time."""
    images, boxes = gt_valid.shape
    total = field.x.shape[0]
    owner = torch.full((images, total), -1, device=gt_valid.device)
    similarity = field.x.new_full((images, total), -1.0)
    best = field.x.new_zeros((images, total))
    for start, stop in row_chunks(boxes, images * total * TABLES):
        table = _similarity(field, box.of_rows(start, stop), distance)
        # Places that no box may claim are below all others.
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
