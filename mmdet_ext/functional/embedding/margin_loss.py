"""Losses of a margin classifier, from the score of the own class and the weight of all others."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from mmdet_ext.functional.numerics.precision import promote_half

__all__ = ['margin_softmax_loss', 'unified_cross_entropy_loss']


def margin_softmax_loss(target: Tensor, others: Tensor) -> Tensor:
    """Compute the cross entropy of the own class: log(1 + exp(others - target)).

    With ``target`` the score z_y of the own class and ``others`` the log-sum-exp of the other
    scores, this is -log(exp(z_y) / sum_j exp(z_j)).

    Args:
        target: score of the own class, (N,).
        others: log-sum-exp of the scores of the other classes, (N,).

    Returns:
        Tensor: loss of each sample, (N,), at least 0.

    >>> import torch
    >>> margin_softmax_loss(torch.tensor([0.0]), torch.tensor([0.0]))
    tensor([0.6931])
    """
    target, others = promote_half(target, others)
    return F.softplus(others - target)


def unified_cross_entropy_loss(
    target: Tensor, others: Tensor, negative_weight: float = 1.0
) -> Tensor:
    """Compute UniFace's loss, which compares each class with one threshold b.

    The loss is log(1 + exp(-target)) + l others.

    Args:
        target: score of the own class minus the threshold, s (cos t - m) - b, (N,).
        others: sum over the other classes of log(1 + exp(s cos t_j - b)), (N,).
        negative_weight: l.

    Returns:
        Tensor: loss of each sample, (N,), at least 0.

    References:
        Zhou et al., UniFace: Unified Cross-Entropy Loss for Deep Face Recognition, ICCV 2023.

    >>> import torch
    >>> unified_cross_entropy_loss(torch.tensor([0.0]), torch.tensor([1.0]))
    tensor([1.6931])
    """
    target, others = promote_half(target, others)
    return F.softplus(-target) + negative_weight * others
