"""Part affinity fields: the direction of a limb at each pixel that it covers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmdet_ext.functional.numerics.checks import check_number, check_whole
from mmdet_ext.functional.numerics.precision import promote_half

__all__ = ['LimbScores', 'check_limbs', 'limb_scores', 'paf_loss', 'paf_targets']

# A pixel this far outside of a limb, in cells, still counts as on its edge: limbs along the grid
# have edges on pixels.
_EDGE = 1e-4
# Slopes below this are flat: over a map of any size, they do not leave a row.
_FLAT = 1e-12


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
    images, _, joints = visible.shape
    pairs = np.array(check_limbs(limbs, joints)).reshape(-1, 2)
    height, columns = shape
    area, count = height * columns, len(pairs)
    # The lists of pixels are short: NumPy makes them in a third of the time of PyTorch.
    places = keypoints.detach().double().cpu().numpy()
    shown = (visible.detach().cpu().numpy() > 0.5) & np.isfinite(places).all(-1)
    start, end = places[:, :, pairs[:, 0]], places[:, :, pairs[:, 1]]
    with np.errstate(invalid='ignore', over='ignore'):
        axis = end - start
        length = np.hypot(axis[..., 0], axis[..., 1])
    shown = shown[:, :, pairs[:, 0]] & shown[:, :, pairs[:, 1]]
    chosen = np.nonzero(shown & (length > 0) & np.isfinite(length))
    unit = axis[chosen] / length[chosen][:, None]
    rows = _rows(start[chosen], unit, length[chosen], (width, overhang), shape)
    # Pixels of all runs, as places in the maps of x; those of y follow each of them.
    plane = (chosen[0] * count + chosen[2])[rows.limb] * (2 * area)
    run, step = _ranges(rows.pixels)
    place = (rows.first + plane)[run] + step
    wide = keypoints.dtype == torch.float64
    fields = torch.zeros(
        images, count, 2, height, columns, dtype=torch.float64 if wide else torch.float32
    )
    flat = fields.view(-1).numpy()
    _write_means(flat, place, unit.T.astype(flat.dtype)[:, rows.limb[run]], area)
    return fields.to(keypoints.device)


def _write_means(fields: np.ndarray, place: np.ndarray, vectors: np.ndarray, area: int) -> None:
    """Write vectors into maps that are 0: where a place occurs several times, their mean.

    Args:
        fields: maps of x, each followed by that of y, flat.
        place: in the maps of x, (P,).
        vectors: x and y, (2, P).
        area: pixels of a map.
    """
    # A place that occurs again does not hold its first number any more.
    number = np.arange(len(place), dtype=fields.dtype)
    fields[place] = number
    if (fields[place] == number).all():
        fields[place], fields[place + area] = vectors
        return
    fields[place] = 0
    _, cell, people = np.unique(place, return_inverse=True, return_counts=True)
    share = vectors / people[cell]
    np.add.at(fields, place, share[0])
    np.add.at(fields, place + area, share[1])


class _Rows(NamedTuple):
    """Runs of pixels within limbs, one for each row that a limb covers.

    Attributes:
        first: number y * W + x of the first pixel.
        pixels: number of pixels, at least 0.
        limb: number of the limb.
    """

    first: np.ndarray
    pixels: np.ndarray
    limb: np.ndarray


def _rows(
    start: np.ndarray,
    unit: np.ndarray,
    length: np.ndarray,
    margins: tuple[float, float],
    shape: tuple[int, int],
) -> _Rows:
    """Find the pixels on each of M limbs, row by row of the map.

    Args:
        start: (M, 2).
        unit: direction, (M, 2).
        length: (M,).
        margins: distance from the axis, and beyond the ends.
        shape: H and W.
    """
    height, columns = shape
    width, beyond = margins
    (x, y), (ux, uy) = start.T, unit.T
    # Rows that a limb may cover: its ends, and half its thickness beyond.
    reach = width * np.abs(ux) + beyond * np.abs(uy) + _EDGE
    stop = y + uy * length
    low = np.ceil(np.minimum(y, stop) - reach).clip(0, height)
    high = np.floor(np.maximum(y, stop) + reach).clip(-1, height - 1)
    # Columns x of a row within both strips, along and across the limb,
    #   -o <= ux (x - ax) + uy (y - ay) <= l + o   and   |uy (x - ax) - ux (y - ay)| <= width,
    # lie between two lines each: left + slope y <= x <= right + slope y.
    along, across = _not_flat(ux), _not_flat(uy)
    near, far = -(beyond + _EDGE) / along, (length + beyond + _EDGE) / along
    side = (width + _EDGE) / np.abs(across)
    slope, slope2 = -uy / along, ux / across
    line, line2 = x - slope * y, x - slope2 * y
    bounds = np.stack(
        [
            low,
            line + np.minimum(near, far),
            line + np.maximum(near, far),
            slope,
            line2 - side,
            line2 + side,
            slope2,
        ]
    )
    limb, step = _ranges((high - low + 1).clip(0).astype(np.int64))
    low, left, right, slope, left2, right2, slope2 = bounds[:, limb]
    row = low + step
    shift, shift2 = slope * row, slope2 * row
    first = np.ceil(np.maximum(left + shift, left2 + shift2)).clip(0, columns)
    last = np.floor(np.minimum(right + shift, right2 + shift2)).clip(-1, columns - 1)
    count = (last - first + 1).clip(0).astype(np.int64)
    return _Rows((row * columns + first).astype(np.int64), count, limb)


def _not_flat(slope: np.ndarray) -> np.ndarray:
    """Return slopes with a least one instead of 0: its lines leave either all x, or none."""
    return np.where(np.abs(slope) < _FLAT, _FLAT, slope)


def _ranges(count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Enumerate the items of ranges: the number of the range, and that of the item in it."""
    which = np.repeat(np.arange(len(count)), count)
    return which, np.arange(len(which)) - np.repeat(count.cumsum() - count, count)


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
