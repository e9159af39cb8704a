"""Part affinity fields: the direction of a limb at each pixel that it covers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mmdet_ext.functional.numerics.checks import check_number, check_whole
from mmdet_ext.functional.numerics.precision import promote_half

__all__ = ['LimbScores', 'check_limbs', 'limb_scores', 'paf_loss', 'paf_targets']

# A pixel this far outside of a limb, in cells, still counts as on its edge: limbs along the grid
# have edges on pixels.
_EDGE = 1e-4


def check_limbs(limbs: Sequence[Sequence[int]], joints: int) -> list[tuple[int, int]]:
    """Return the limbs as pairs of joints, after checking them.

    Args:
        limbs: pairs of different joints, from 0 to ``joints`` - 1; no pair twice.
        joints: number K of joints.

    Raises:
        ValueError: for a limb that is no such pair.
    """
    pairs = [tuple(int(end) for end in limb) for limb in limbs]
    for pair in pairs:
        fits = len(pair) == 2 and all(0 <= end < joints for end in pair)
        if not fits or pair[0] == pair[1] or pairs.count(pair) > 1:
            raise ValueError(
                f'limbs must be different pairs of two of the joints 0 to {joints - 1}, got {pair} '
                f'among {len(pairs)}'
            )
    return [(pair[0], pair[1]) for pair in pairs]


class _Drawn(NamedTuple):
    """Pixels of all limbs that are drawn: place in the maps, and the limb of each."""

    place: Tensor
    limb: Tensor


def paf_targets(
    keypoints: Tensor,
    visible: Tensor,
    limbs: Sequence[Sequence[int]],
    shape: tuple[int, int],
    width: float = 1.0,
    overhang: float = 0.0,
) -> Tensor:
    r"""Draw the limbs of all people as fields of unit vectors.

    A pixel p is on the limb c of a person, from joint a to joint b, of length l and of direction
    v = (b - a) / l, if

    .. math:: -o \le v \cdot (p - a) \le l + o, \quad |v_\perp \cdot (p - a)| \le \text{width}.

    The field of limb c there is v. Where the limbs c of several people overlap, it is the mean of
    their directions; elsewhere it is 0.

    Args:
        keypoints: x and y, in cells, of N people and K joints, (B, N, K, 2).
        visible: whether the joint is labelled, (B, N, K), bool, or numbers above 0.5. A limb is
            drawn if both its joints are labelled and finite, and at different places; the part of
            it inside the map.
        limbs: C pairs of joints.
        shape: H and W of a map.
        width: distance from the limb's axis, in cells, above 0.
        overhang: o, by which a limb reaches beyond its joints, in cells, at least 0. The paper has
            0; with 1, the pixels next to a joint have a direction wherever in its cell it lies.

    Returns:
        Tensor: (B, C, 2, H, W), x and y of the directions; float32, or float64 with the keypoints.

    Raises:
        ValueError: for limbs that are no pairs of joints, or a width out of its range.

    References:
        Cao et al., Realtime Multi-Person 2D Pose Estimation using Part Affinity Fields, 2017,
        equations 8 and 9.

    >>> joints = torch.tensor([[[[1.0, 0.0], [2.0, 0.0]]]])
    >>> paf_targets(joints, torch.ones(1, 1, 2), [(0, 1)], (1, 4), 0.5)[0, 0]
    tensor([[[0., 1., 1., 0.]],
    <BLANKLINE>
            [[0., 0., 0., 0.]]])
    """
    check_number('width', width, above=0, finite=True)
    check_number('overhang', overhang, least=0, finite=True)
    (places,) = promote_half(keypoints)
    images, _, joints = visible.shape
    pairs = torch.tensor(check_limbs(limbs, joints), device=places.device).view(-1, 2)
    height, columns = shape
    area, count = height * columns, len(pairs)
    fields = places.new_zeros(images * count * 2 * area)
    start, end = places[:, :, pairs[:, 0]], places[:, :, pairs[:, 1]]
    shown = (visible.to(places.dtype) > 0.5) & places.isfinite().all(-1)
    shown = shown[:, :, pairs[:, 0]] & shown[:, :, pairs[:, 1]]
    axis = end - start
    length = axis.square().sum(-1).sqrt()
    image, person, limb = (shown & (length > 0) & length.isfinite()).nonzero(as_tuple=True)
    if len(image):
        chosen = image, person, limb
        start, end, length = start[chosen], end[chosen], length[chosen]
        unit = axis[chosen] / length[:, None]
        drawn = _pixels(start, unit, length, (width, overhang), shape)
        plane = (image * count + limb)[drawn.limb] * area
        place = plane + drawn.place
        people = torch.zeros(images * count * area, dtype=torch.int16, device=places.device)
        people.index_add_(0, place, torch.ones_like(place, dtype=torch.int16))
        share = unit[drawn.limb] / people[place].to(unit.dtype)[:, None]
        # The plane of x lies before that of y.
        where = place + plane
        fields.index_add_(0, where, share[:, 0])
        fields.index_add_(0, where + area, share[:, 1])
    return fields.view(images, count, 2, height, columns)


def _pixels(
    start: Tensor,
    unit: Tensor,
    length: Tensor,
    margins: tuple[float, float],
    shape: tuple[int, int],
) -> _Drawn:
    """List the pixels on each of M limbs, row by row of the map.

    Args:
        start: (M, 2).
        unit: direction, (M, 2).
        length: (M,).
        margins: distance from the axis, and beyond the ends.
        shape: H and W.
    """
    height, columns = shape
    device = start.device
    # Rows that a limb may cover: its ends, and half its thickness beyond.
    width, beyond = margins
    reach = width * unit[:, 0].abs() + beyond * unit[:, 1].abs() + _EDGE
    stop = start[:, 1] + unit[:, 1] * length
    low = (torch.minimum(start[:, 1], stop) - reach).ceil().clamp(0, height).long()
    high = (torch.maximum(start[:, 1], stop) + reach).floor().clamp(-1, height - 1).long()
    limb, y = _ranges(low, (high - low + 1).clamp(min=0), device)
    # Columns of a row within both strips, along and across the limb:
    #   -o <= ux (x - ax) + uy (y - ay) <= l + o   and   |uy (x - ax) - ux (y - ay)| <= width
    ux, uy = unit[limb, 0], unit[limb, 1]
    ax, dy = start[limb, 0], y.to(unit.dtype) - start[limb, 1]
    left, right = _strip(ux, uy * dy, -beyond, length[limb] + beyond)
    left2, right2 = _strip(uy, -ux * dy, -width, width)
    left = (ax + torch.maximum(left, left2)).ceil().clamp(0, columns).long()
    right = (ax + torch.minimum(right, right2)).floor().clamp(-1, columns - 1).long()
    row, x = _ranges(left, (right - left + 1).clamp(min=0), device)
    return _Drawn(y[row] * columns + x, limb[row])


def _strip(
    slope: Tensor, offset: Tensor, low: float, high: float | Tensor
) -> tuple[Tensor, Tensor]:
    """Solve low <= slope x + offset <= high for x, with the edge's tolerance."""
    first = (low - _EDGE - offset) / slope
    last = (high + _EDGE - offset) / slope
    left, right = torch.minimum(first, last), torch.maximum(first, last)
    # A slope of 0 leaves either all x, or none.
    every = (offset >= low - _EDGE) & (offset <= high + _EDGE)
    bound = torch.where(every, -torch.inf, torch.inf).to(slope.dtype)
    flat = slope == 0
    return torch.where(flat, bound, left), torch.where(flat, -bound, right)


def _ranges(first: Tensor, count: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Enumerate ranges of integers: the number of the range, and the integer, in turn."""
    which = torch.repeat_interleave(torch.arange(len(first), device=device), count)
    before = count.cumsum(0) - count
    return which, torch.arange(len(which), device=device) - (before - first)[which]


def paf_loss(
    fields: Tensor,
    targets: Tensor,
    weights: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    r"""Compute the mean squared error of each limb's field.

    .. math:: L_{bc} = \frac{w_{bc}}{2 H W} \sum_p m_{bp} \, |F_{bcp} - F^*_{bcp}|^2

    The paper sums where this takes the mean.

    Args:
        fields: F, (B, C, 2, H, W).
        targets: F*, (B, C, 2, H, W), from `paf_targets`.
        weights: w of each limb, (B, C).
        mask: m, 0 where pixels do not count, such as in crowds without labels, (B, H, W).

    Returns:
        Tensor: (B, C), float32, or float64 with an input. Pixels of weight or mask 0 have no
        gradient, also where the field is not finite.

    Raises:
        ValueError: for shapes that do not fit.

    References:
        Cao et al., 2017 (see `paf_targets`), equation 5.
    """
    if fields.dim() != 5 or fields.shape[2] != 2 or fields.shape != targets.shape:
        raise ValueError(
            'fields and targets must be (B, C, 2, H, W) of one shape, got '
            f'{tuple(fields.shape)} and {tuple(targets.shape)}'
        )
    fields, targets = promote_half(fields, targets)
    images, count, _, height, width = fields.shape
    factor = None
    if weights is not None:
        if weights.shape != (images, count):
            raise ValueError(
                f'weights must be {(images, count)}, one per limb, got {tuple(weights.shape)}'
            )
        factor = weights.to(fields.dtype)[:, :, None, None, None]
    if mask is not None:
        if mask.shape != (images, height, width):
            raise ValueError(f'mask must be {(images, height, width)}, got {tuple(mask.shape)}')
        part = mask.to(fields.dtype)[:, None, None]
        factor = part if factor is None else factor * part
    difference = fields - targets
    if factor is None:
        return difference.square().mean((2, 3, 4))
    difference = difference.masked_fill(factor == 0, 0)
    return (difference.square() * factor).mean((2, 3, 4))


class LimbScores(NamedTuple):
    """Fit of pairs of candidates to the field between them.

    Attributes:
        score: mean of the field along the connection, less the penalty of its length, (C, M, M).
        share: share of the points along it whose field is above the threshold, (C, M, M).
        length: distance of the candidates, in cells, (C, M, M).
    """

    score: Tensor
    share: Tensor
    length: Tensor


def limb_scores(
    fields: Tensor,
    candidates: Tensor,
    limbs: Sequence[Sequence[int]],
    *,
    points: int = 10,
    threshold: float = 0.05,
    longest: float | None = None,
) -> LimbScores:
    r"""Integrate the field of each limb along the lines between all candidates for its ends.

    .. math:: E = \frac{1}{P} \sum_{i=1}^P F_c(p_i) \cdot v
        + \min\left(\frac{l_{max}}{|b - a|} - 1, 0\right), \quad v = \frac{b - a}{|b - a|}

    with P points evenly spaced from candidate a to candidate b, both included, and read at the
    nearest pixel. Candidates at one place have no direction: score, share and length are 0.

    Args:
        fields: F of one image, (C, 2, H, W). Values that are not finite count as 0.
        candidates: x and y of M candidates for each of K joints, in cells, (K, M, 2).
        limbs: C pairs of joints.
        points: P, at least 2.
        threshold: on the product of field and direction, for the share.
        longest: l_max, in cells, above which the score falls; None for no penalty. The authors'
            code takes half the height of the image.

    Returns:
        LimbScores: row i of limb (a, b) stands for candidate i of joint a, column j for candidate
        j of joint b.

    Raises:
        ValueError: for shapes or limbs that do not fit, or options out of their range.

    References:
        Cao et al., 2017 (see `paf_targets`), equations 10 and 11; the penalty and the share are
        in the authors' code, and in section 3.2 of OpenPose, 2019.

    >>> fields = torch.zeros(1, 2, 1, 4)
    >>> fields[0, 0] = 1.0
    >>> found = limb_scores(fields, torch.tensor([[[0.0, 0.0]], [[3.0, 0.0]]]), [(0, 1)])
    >>> found.score, found.length
    (tensor([[[1.]]]), tensor([[[3.]]]))
    """
    check_whole('points', points, 2)
    if longest is not None:
        check_number('longest', longest, above=0, finite=True)
    if candidates.dim() != 3 or candidates.shape[2] != 2:
        raise ValueError(f'candidates must be (K, M, 2), got {tuple(candidates.shape)}')
    pairs = check_limbs(limbs, len(candidates))
    if fields.dim() != 4 or fields.shape[:2] != (len(pairs), 2):
        raise ValueError(
            f'fields must be ({len(pairs)}, 2, H, W) for {len(pairs)} limbs, got '
            f'{tuple(fields.shape)}'
        )
    fields, places = promote_half(fields, candidates)
    ends = torch.tensor(pairs, device=places.device).view(-1, 2)
    # (C, M, 1, 2) and (C, 1, M, 2)
    start, end = places[ends[:, 0]][:, :, None], places[ends[:, 1]][:, None]
    axis = end - start
    length = axis.square().sum(-1).sqrt()
    unit = axis / length.clamp(min=torch.finfo(places.dtype).tiny)[..., None]
    height, width = fields.shape[2:]
    part = torch.linspace(0, 1, points, dtype=places.dtype, device=places.device)
    # (C, M, M, P)
    x = (start[..., :1] + axis[..., :1] * part + 0.5).floor().clamp_(0, width - 1)
    y = (start[..., 1:] + axis[..., 1:] * part + 0.5).floor().clamp_(0, height - 1)
    cell = (y * width + x).long().flatten(1)
    flat = fields.flatten(2)
    along = flat[:, 0].gather(1, cell).view(x.shape) * unit[..., :1]
    along += flat[:, 1].gather(1, cell).view(x.shape) * unit[..., 1:]
    along = along.nan_to_num(0.0, 0.0, 0.0)
    score = along.mean(-1)
    if longest is not None:
        score = score + (longest / length - 1).clamp(max=0)
    apart = length > 0
    score = score.where(apart, 0.0)
    return LimbScores(score, (along > threshold).to(score.dtype).mean(-1) * apart, length)
