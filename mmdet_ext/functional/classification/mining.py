"""Hard example mining: a choice of the negatives that a classification loss keeps."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mmdet_ext.functional.numerics.checks import check_number, check_that, is_real
from mmdet_ext.functional.numerics.precision import promote_half

__all__ = [
    'Samples',
    'check_mining',
    'hard_negative_mask',
    'hardest_of_rows',
    'mining_samples',
    'ohem_loss',
]

#: Negatives per positive where no rule is chosen, as in SSD.
SSD_RATIO = 3.0

#: Digits of a 32-bit number, the leading digit first: its shift to the right, and its bits.
_DIGITS = ((21, 11), (10, 11), (0, 10))

#: Added before a quota is rounded down, so that 0.29 per positive gives 29 for 100 positives.
_QUOTA_EPS = 1e-6


def hard_negative_mask(
    loss: Tensor,
    positive_mask: Tensor,
    valid_mask: Tensor | None = None,
    group_index: Tensor | None = None,
    *,
    negatives_per_positive: float | None = None,
    num_negatives: int | None = None,
    loss_threshold: float | None = None,
    min_negatives: int = 0,
) -> Tensor:
    r"""Mark the hardest negatives of each group, such as an image.

    With :math:`r_i` the rank of negative i in its group, 0 for the highest loss, and :math:`P` the
    number of positives of the group, i is marked if

    .. math::
        r_i < \max(\lfloor \rho P \rfloor, m), \quad r_i < n, \quad \text{or} \quad
        l_i \ge t \;\text{or}\; r_i < m

    for :math:`\rho` = ``negatives_per_positive``, :math:`n` = ``num_negatives`` or :math:`t` =
    ``loss_threshold``, of which one is given, and :math:`m` = ``min_negatives``.

    Args:
        loss: (..., P) per sample, or (..., P, C), which is summed over the classes to rank
            samples. The choice has no gradient.
        positive_mask: (..., P) bool. Each row of P samples is a group.
        valid_mask: (..., P) bool; a sample with False neither counts nor is marked. None: all are
            valid.
        group_index: (P,) integers for samples (P,): samples with the same number form a group, in
            any order. None: rows are groups.
        negatives_per_positive: negatives per positive; 3 where no rule is given.
        num_negatives: negatives per group, for any number of positives.
        loss_threshold: least loss of the negatives that are marked.
        min_negatives: least number of negatives per group, also in an image without positives.

    Returns:
        Tensor: (..., P) bool. Losses are ranked in float32. Of two equal losses the earlier sample
        counts as the harder. A group with fewer negatives than its number has all of them marked.
        A NaN ranks as infinity, so that it is not hidden.

    Raises:
        ValueError: for more than one rule, an option out of range, or shapes that do not fit.

    >>> loss = torch.tensor([0.1, 0.9, 0.5, 0.7, 0.2])
    >>> positive = torch.tensor([True, False, False, False, False])
    >>> hard_negative_mask(loss, positive, negatives_per_positive=2)
    tensor([False,  True, False,  True, False])

    References:
        Liu et al., SSD: Single Shot MultiBox Detector, 2016, section 2.2, "Hard negative mining".
        Shrivastava et al., Training Region-based Object Detectors with Online Hard Example
        Mining, 2016, for a fixed number.
    """
    check_mining(negatives_per_positive, num_negatives, loss_threshold, min_negatives)
    _check_shapes(loss, positive_mask, valid_mask, group_index)
    hardness = _sample_loss(loss.detach(), positive_mask.dim())
    valid = torch.ones_like(positive_mask) if valid_mask is None else valid_mask
    negative, positive = valid & ~positive_mask, valid & positive_mask
    least, above = min_negatives, None
    if loss_threshold is not None:
        above = negative & (hardness >= loss_threshold)
        if min_negatives == 0:
            return above
        ratio = 0.0
    elif num_negatives is not None:
        least, ratio = num_negatives, 0.0
    else:
        ratio = SSD_RATIO if negatives_per_positive is None else negatives_per_positive
    if group_index is None:
        quota = _quota(positive.sum(-1, keepdim=True), ratio, least, negative.shape[-1])
        hardest = hardest_of_rows(hardness, negative, quota)
    else:
        rank, positives = _rank(hardness.masked_fill(~negative, -math.inf), positive, group_index)
        hardest = negative & (rank < _quota(positives, ratio, least, len(negative)))
    return hardest if above is None else hardest | above


def ohem_loss(
    loss: Tensor,
    positive_mask: Tensor,
    valid_mask: Tensor | None = None,
    group_index: Tensor | None = None,
    *,
    negatives_per_positive: float | None = None,
    num_negatives: int | None = None,
    loss_threshold: float | None = None,
    min_negatives: int = 0,
) -> Tensor:
    r"""Return the loss of all positives and the hardest negatives, 0 for the others.

    .. math::
        L_i = [i \in \text{positives} \cup \text{hard negatives}] \; l_i

    with :math:`l_i` the ``loss`` of sample i, and the hard negatives from `hard_negative_mask`.

    Args:
        loss: (..., P) or (..., P, C), not negative; half precision is computed in float32.
        positive_mask: (..., P) bool.
        valid_mask: (..., P) bool, None for all; where False, the loss is 0.
        group_index: (P,) numbers of groups, or None for rows, as in `hard_negative_mask`.
        negatives_per_positive: negatives per positive.
        num_negatives: negatives per group.
        loss_threshold: least loss of the negatives that are kept.
        min_negatives: least number of negatives per group.

    Returns:
        Tensor: the shape of ``loss``, float32 or float64. Samples that are not kept have exactly
        the loss 0 and the gradient 0, even where their loss is NaN.

    Raises:
        ValueError: as `hard_negative_mask`.

    >>> positive = torch.tensor([True, False, False])
    >>> ohem_loss(torch.tensor([0.1, 0.9, 0.5]), positive, negatives_per_positive=1)
    tensor([0.1000, 0.9000, 0.0000])

    References:
        Liu et al., SSD: Single Shot MultiBox Detector, 2016, section 2.2.
    """
    (loss,) = promote_half(loss)
    hard = hard_negative_mask(
        loss,
        positive_mask,
        valid_mask,
        group_index,
        negatives_per_positive=negatives_per_positive,
        num_negatives=num_negatives,
        loss_threshold=loss_threshold,
        min_negatives=min_negatives,
    )
    keep = hard | (positive_mask if valid_mask is None else positive_mask & valid_mask)
    keep = keep.reshape(keep.shape + (1,) * (loss.dim() - keep.dim()))
    return torch.where(keep, loss, loss.new_zeros(()))


class Samples(NamedTuple):
    """Targets, sorted into positives, negatives and ignored samples.

    Attributes:
        target: the given target, in which ignored samples are background, so that any loss can
            take it.
        positive_mask: bool, of the shape of the samples.
        valid_mask: bool, of the shape of the samples; False for ignored samples.
    """

    target: Tensor
    positive_mask: Tensor
    valid_mask: Tensor


def mining_samples(
    pred: Tensor, target: Tensor, use_sigmoid: bool, ignore_index: int | None = None
) -> Samples:
    """Sort samples into positives, negatives and ignored ones by their targets.

    Args:
        pred: (..., C) logits, or (N,) for a binary target (N,).
        target: (...) labels: the background is C for sigmoid, C - 1 for softmax, and a negative
            label is ignored. Or dense, of the shape of ``pred``: a sample is positive if any entry
            is above 0 (with softmax any but the last), and ignored if all are below 0.
        use_sigmoid: whether the columns are classes only. Otherwise the last is the background.
        ignore_index: one more label to ignore, such as 255.

    Raises:
        ValueError: if ``target`` has another shape.

    >>> samples = mining_samples(torch.zeros(3, 2), torch.tensor([1, 2, -1]), use_sigmoid=True)
    >>> samples.positive_mask
    tensor([ True, False, False])
    """
    if target.shape == pred.shape:
        return _dense_samples(target, use_sigmoid)
    if target.shape != pred.shape[:-1]:
        raise ValueError(
            f'target of shape {tuple(target.shape)} does not fit predictions of shape '
            f'{tuple(pred.shape)}: give one label per sample, {tuple(pred.shape[:-1])}, or a dense '
            'target of the shape of the predictions'
        )
    background = pred.shape[-1] - (0 if use_sigmoid else 1)
    valid = target >= 0
    if ignore_index is not None:
        valid = valid & (target != ignore_index)
    return Samples(target.masked_fill(~valid, background), valid & (target < background), valid)


def _dense_samples(target: Tensor, use_sigmoid: bool) -> Samples:
    """Sort samples by a target for each element."""
    if target.dim() == 1:
        valid = target >= 0
        return Samples(target.clamp(min=0), target > 0, valid)
    valid = (target >= 0).any(-1)
    foreground = target if use_sigmoid else target[..., :-1]
    safe = target.masked_fill(~valid[..., None], 0)
    return Samples(safe, (foreground > 0).any(-1), valid)


def check_mining(
    negatives_per_positive: float | None,
    num_negatives: int | None,
    loss_threshold: float | None,
    min_negatives: int,
) -> None:
    """Raise ValueError unless the options choose at most one rule, and are in their ranges."""
    ways = {
        'negatives_per_positive': negatives_per_positive,
        'num_negatives': num_negatives,
        'loss_threshold': loss_threshold,
    }
    given = {name: value for name, value in ways.items() if value is not None}
    if len(given) > 1:
        listed = ' and '.join(f'{name}={value}' for name, value in given.items())
        raise ValueError(f'{listed} contradict each other: each is a way of mining; give one')
    for name, value in given.items():
        check_number(name, value, least=0, finite=True)
    for name, count in (('num_negatives', num_negatives), ('min_negatives', min_negatives)):
        whole = count is None or (is_real(count) and count >= 0 and float(count).is_integer())
        check_that(whole, name, count, 'a whole number of at least 0')
    if num_negatives is not None and min_negatives > 0:
        raise ValueError(
            f'min_negatives={min_negatives} goes with negatives_per_positive or loss_threshold; '
            f'num_negatives={num_negatives} already says how many there are'
        )


def _check_shapes(
    loss: Tensor, positive: Tensor, valid: Tensor | None, group: Tensor | None
) -> None:
    """Raise ValueError unless the arguments of `hard_negative_mask` fit each other."""
    if loss.shape[: positive.dim()] != positive.shape or positive.dim() == 0:
        raise ValueError(
            f'loss of shape {tuple(loss.shape)} must begin with the shape of positive_mask, '
            f'{tuple(positive.shape)}: one loss per sample, or a row of them'
        )
    if valid is not None and valid.shape != positive.shape:
        raise ValueError(
            f'valid_mask must have the shape of positive_mask, {tuple(positive.shape)}, got '
            f'{tuple(valid.shape)}'
        )
    if group is not None and (positive.dim() != 1 or group.shape != positive.shape):
        raise ValueError(
            'the index of groups (images) must be (N,) for samples (N,), got '
            f'{tuple(group.shape)} for {tuple(positive.shape)}. Rows of samples (B, P) are '
            'groups as they are: leave it out'
        )


def _sample_loss(loss: Tensor, dims: int) -> Tensor:
    """Sum losses per element to losses per sample, in at least float32."""
    (loss,) = promote_half(loss)
    return loss if loss.dim() == dims else loss.flatten(dims).sum(-1)


def _quota(positives: Tensor, ratio: float, least: int, most: int) -> Tensor:
    """Return the number of negatives to keep, from the number of positives."""
    wanted = (positives.double() * ratio + _QUOTA_EPS).floor()
    return wanted.clamp(min=least).clamp(max=most).long()


def hardest_of_rows(hardness: Tensor, negative: Tensor, quota: Tensor) -> Tensor:
    """Mark the hardest negatives of each row.

    This is a radix selection: the counts of the leading digits show at which digit the quota ends,
    and only samples with that digit are examined further. Sorting takes several times as long.

    Args:
        hardness: (..., P), ranked in float32; a NaN ranks as infinity.
        negative: (..., P) bool, the samples of which some are marked.
        quota: (..., 1) integers, the number of samples to mark in each row, at most P.

    Returns:
        Tensor: (..., P) bool. Of equal numbers the earlier sample is marked.

    >>> every = torch.ones(4, dtype=torch.bool)
    >>> hardest_of_rows(torch.tensor([0.1, 0.5, 0.5, 0.9]), every, torch.tensor([2]))
    tensor([False,  True, False,  True])
    """
    shape = negative.shape
    rows = shape[:-1].numel()
    key, active, left = (
        part.reshape(rows, part.shape[-1]) for part in (_ordered(hardness), negative, quota)
    )
    row = torch.arange(rows, device=key.device)[:, None]
    harder = torch.zeros_like(active)
    for shift, bits in _DIGITS:
        digit = (key >> shift) & (2**bits - 1)
        counts = torch.zeros(rows * 2**bits, dtype=torch.int32, device=key.device)
        place = (row * 2**bits + digit).flatten()
        counts = counts.scatter_add(0, place, active.flatten().int()).view(rows, 2**bits)
        above = counts.flip(-1).cumsum(-1).flip(-1) - counts
        last = (above >= left).sum(-1, keepdim=True).clamp(max=2**bits - 1)
        left = left - above.gather(-1, last)
        harder = harder | (active & (digit > last))
        active = active & (digit == last)
    return (harder | (active & (active.cumsum(-1) <= left))).reshape(shape)


def _ordered(hardness: Tensor) -> Tensor:
    """Map float32 values to integers in [0, 2**32) of the same order, NaN to the largest."""
    plain = hardness.float().nan_to_num(nan=math.inf, posinf=math.inf, neginf=-math.inf)
    bits = (plain + 0.0).view(torch.int32).long()  # + 0.0 makes -0.0 equal to 0.0
    return (bits ^ ((bits >> 63) & 0x7FFFFFFF)) + 2**31


def _rank(hardness: Tensor, positive: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rank of each sample in its group, 0 the hardest, and its group's positives."""
    order = hardness.argsort(dim=-1, descending=True, stable=True)
    place = torch.arange(len(hardness), device=hardness.device)
    order = order[group[order].argsort(stable=True)]
    ordered = group[order]
    # For each sample the first place of its group, and the place after the last.
    begin = torch.searchsorted(ordered, ordered)
    end = torch.searchsorted(ordered, ordered, right=True)
    before = F.pad(positive[order].cumsum(0), (1, 0))
    back = torch.zeros_like(order).scatter(0, order, place)
    return (place - begin)[back], (before[end] - before[begin])[back]
