"""Hard example mining: which negatives a classification loss keeps."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mmdet_ext.functional.numerics.precision import promote_half

#: Negatives a positive where no way of mining is chosen, as in SSD.
SSD_RATIO = 3.0

#: Digits of a 32-bit number, the leading one first: how far to the right it lies, and its bits.
_DIGITS = ((21, 11), (10, 11), (0, 10))

#: Added before a quota is rounded down, so that 0.29 a positive gives 29 for 100 positives.
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
    r"""Mark the hardest negatives of each group (picture).

    With :math:`r_i` the rank of negative i among those of its group, 0 for the highest loss, and
    :math:`P` the positives of the group, i is marked if

    .. math::
        r_i < \max(\lfloor \rho P \rfloor, m), \quad r_i < n, \quad \text{or} \quad
        l_i \ge t \;\text{or}\; r_i < m

    for :math:`\rho` = ``negatives_per_positive``, :math:`n` = ``num_negatives``, :math:`t` =
    ``loss_threshold``, whichever is given, and :math:`m` = ``min_negatives``.

    Args:
        loss: (..., P) one a sample, or (..., P, C), summed over the classes to rank samples. No
            gradient flows through the choice.
        positive_mask: (..., P) bool. Each row of P is a group.
        valid_mask: (..., P) bool; where False, a sample neither counts nor is marked. None is all.
        group_index: (P,) integers for samples (P,): samples of one number are a group, in any
            order. None takes rows.
        negatives_per_positive: negatives kept a positive; 3 where no other way is given.
        num_negatives: negatives kept a group, however many positives it has.
        loss_threshold: negatives of at least this loss are kept.
        min_negatives: negatives kept at least, such as in a picture without positives.

    Returns:
        Tensor: (..., P) bool. Losses are ranked in float32; of equal ones the earlier sample is
        the harder. A group with fewer negatives than its number gives all. A NaN is as hard as
        infinity, so that it is not hidden.

    Raises:
        ValueError: for more than one way of mining, an option out of range, or shapes that do not
            fit.

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
        hardest = _hardest_of_rows(hardness, negative, quota)
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
    r"""The loss of all positives and the hardest negatives, 0 for the others.

    .. math::
        L_i = [i \in \text{positives} \cup \text{hard negatives}] \; l_i

    with :math:`l_i` the sample's ``loss`` and the hard negatives as `hard_negative_mask` has them.

    Args:
        loss: (..., P) or (..., P, C), not negative; half precision is computed in float32.
        positive_mask: (..., P) bool.
        valid_mask: (..., P) bool, None for all; where False, the loss is 0.
        group_index: as in `hard_negative_mask`.
        negatives_per_positive: as in `hard_negative_mask`, and so are the three below.
        num_negatives: likewise.
        loss_threshold: likewise.
        min_negatives: likewise.

    Returns:
        Tensor: the shape of ``loss``, float32 or float64. What is not kept is exactly 0 and so is
        its gradient, even where its loss is NaN.

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
    """Targets told apart for mining.

    Attributes:
        target: as given, with ignored samples as background, which any loss can take.
        positive_mask: the samples' shape, bool.
        valid_mask: likewise; False where the target says to ignore the sample.
    """

    target: Tensor
    positive_mask: Tensor
    valid_mask: Tensor


def told_apart(
    pred: Tensor, target: Tensor, use_sigmoid: bool, ignore_index: int | None = None
) -> Samples:
    """Tell positives, negatives and ignored samples apart by their targets.

    Args:
        pred: (..., C) logits, or (N,) for a binary target (N,).
        target: (...) labels: the background is C for sigmoid, C - 1 for softmax, and a negative
            label is ignored. Or dense, the shape of ``pred``: a sample is positive if any entry
            is above 0 (for softmax: any but the last), and ignored if all are below 0.
        use_sigmoid: whether the columns are classes, or classes and background.
        ignore_index: one more label to ignore, such as 255.

    Raises:
        ValueError: if the shape of ``target`` is neither.

    >>> told_apart(torch.zeros(3, 2), torch.tensor([1, 2, -1]), use_sigmoid=True).positive_mask
    tensor([ True, False, False])
    """
    if target.shape == pred.shape:
        return _told_apart_dense(target, use_sigmoid)
    if target.shape != pred.shape[:-1]:
        raise ValueError(
            f'target of shape {tuple(target.shape)} does not fit predictions of shape '
            f'{tuple(pred.shape)}: give one label a sample, {tuple(pred.shape[:-1])}, or a dense '
            'target of the shape of the predictions'
        )
    background = pred.shape[-1] - (0 if use_sigmoid else 1)
    valid = target >= 0
    if ignore_index is not None:
        valid = valid & (target != ignore_index)
    return Samples(target.masked_fill(~valid, background), valid & (target < background), valid)


def _told_apart_dense(target: Tensor, use_sigmoid: bool) -> Samples:
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
    """Raise ValueError unless these options choose one way of mining, and stand in its range."""
    ways: dict[str, Any] = {
        'negatives_per_positive': negatives_per_positive,
        'num_negatives': num_negatives,
        'loss_threshold': loss_threshold,
    }
    given = {name: value for name, value in ways.items() if value is not None}
    if len(given) > 1:
        listed = ' and '.join(f'{name}={value}' for name, value in given.items())
        raise ValueError(f'{listed} contradict each other: each is a way of mining; give one')
    for name, value in given.items():
        if not isinstance(value, Real) or not 0 <= float(value) < math.inf:
            raise ValueError(f'{name} must be at least 0 and finite, got {value!r}')
    for name, count in (('num_negatives', num_negatives), ('min_negatives', min_negatives)):
        if count is not None and not _is_whole(count):
            raise ValueError(f'{name} must be a whole number of at least 0, got {count!r}')
    if num_negatives is not None and min_negatives > 0:
        raise ValueError(
            f'min_negatives={min_negatives} goes with negatives_per_positive or loss_threshold; '
            f'num_negatives={num_negatives} already says how many there are'
        )


def _is_whole(count: object) -> bool:
    return isinstance(count, Real) and 0 <= float(count) < math.inf and float(count).is_integer()


def _check_shapes(
    loss: Tensor, positive: Tensor, valid: Tensor | None, group: Tensor | None
) -> None:
    if loss.shape[: positive.dim()] != positive.shape or positive.dim() == 0:
        raise ValueError(
            f'loss of shape {tuple(loss.shape)} must begin with the shape of positive_mask, '
            f'{tuple(positive.shape)}: one loss a sample, or a row of them'
        )
    if valid is not None and valid.shape != positive.shape:
        raise ValueError(
            f'valid_mask must have the shape of positive_mask, {tuple(positive.shape)}, got '
            f'{tuple(valid.shape)}'
        )
    if group is not None and (positive.dim() != 1 or group.shape != positive.shape):
        raise ValueError(
            'the index of groups (pictures) must be (N,) for samples (N,), got '
            f'{tuple(group.shape)} for {tuple(positive.shape)}. Rows of samples (B, P) are '
            'groups as they are: leave it out'
        )


def _sample_loss(loss: Tensor, dims: int) -> Tensor:
    """One loss a sample, in at least float32, from one an element."""
    (loss,) = promote_half(loss)
    return loss if loss.dim() == dims else loss.flatten(dims).sum(-1)


def _quota(positives: Tensor, ratio: float, least: int, most: int) -> Tensor:
    """Negatives to keep, from the number of positives."""
    wanted = (positives.double() * ratio + _QUOTA_EPS).floor()
    return wanted.clamp(min=least).clamp(max=most).long()


def _hardest_of_rows(hardness: Tensor, negative: Tensor, quota: Tensor) -> Tensor:
    """The ``quota`` (..., 1) hardest negatives of each row (..., P), the earlier of equal ones.

    A radix selection: counts of the leading digits tell the digit at which the quota ends; only
    samples with that digit are looked at further. Sorting takes several times as long.
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
    """Integers from 0 below 2**32 in the order of float32 values, NaN at the top."""
    plain = hardness.float().nan_to_num(nan=math.inf, posinf=math.inf, neginf=-math.inf)
    bits = (plain + 0.0).view(torch.int32).long()  # + 0.0 makes -0.0 equal to 0.0
    return (bits ^ ((bits >> 63) & 0x7FFFFFFF)) + 2**31


def _rank(hardness: Tensor, positive: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """Rank of each sample in its group, 0 the hardest, and the positives of its group."""
    order = hardness.argsort(dim=-1, descending=True, stable=True)
    place = torch.arange(len(hardness), device=hardness.device)
    order = order[group[order].argsort(stable=True)]
    ordered = group[order]
    # A group's first place and the place after its last, for each of its samples.
    begin = torch.searchsorted(ordered, ordered)
    end = torch.searchsorted(ordered, ordered, right=True)
    before = F.pad(positive[order].cumsum(0), (1, 0))
    back = torch.zeros_like(order).scatter(0, order, place)
    return (place - begin)[back], (before[end] - before[begin])[back]
