"""Fusion of maps by learnt weights that are at least 0 and add up to nearly 1."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mmdet_ext.functional.numerics.checks import check_number

__all__ = ['normalized_fusion']


def normalized_fusion(maps: Sequence[Tensor], weights: Tensor, epsilon: float = 1e-4) -> Tensor:
    r"""Compute the weighted mean of maps by the fast normalised fusion of EfficientDet.

    .. math:: O = \sum_i \frac{\max(w_i, 0)}{\epsilon + \sum_j \max(w_j, 0)} I_i

    with :math:`I_i` = ``maps[i]``, :math:`w_i` = ``weights[i]`` and :math:`\epsilon` =
    ``epsilon``. It does the work of a softmax over the weights without exponentials.

    Args:
        maps: K maps of one shape, (B, C, H, W) or any other.
        weights: (K,), any real numbers. A weight of 0 or below takes its map out of the sum, and
            has no gradient.
        epsilon: above 0, so that the result is 0, and finite, where no weight is above 0.

    Returns:
        Tensor: the shape and precision of the maps.

    Raises:
        ValueError: if the number of weights is not that of the maps, if maps differ in shape, or if
            ``epsilon`` is not above 0.

    Example:
        Of 2 and 6 with the weights 1 and 3 the mean is 5; epsilon makes it a little less.

        >>> import torch
        >>> maps = [torch.tensor([2.0]), torch.tensor([6.0])]
        >>> round(normalized_fusion(maps, torch.tensor([1.0, 3.0])).item(), 3)
        5.0
        >>> normalized_fusion(maps, torch.tensor([-1.0, 0.0]))
        tensor([0.])

    References:
        Tan et al., EfficientDet: Scalable and Efficient Object Detection, 2020, section 3.3, fast
        normalized fusion.
    """
    check_number('epsilon', epsilon, above=0, finite=True)
    if weights.shape != (len(maps),):
        raise ValueError(
            f'weights must have one number per map, got the shape {tuple(weights.shape)} for '
            f'{len(maps)} maps'
        )
    shapes = [tuple(each.shape) for each in maps]
    if len(set(shapes)) != 1:
        raise ValueError(f'maps must have one shape, got {shapes}: resize them first')
    positive = weights.relu()
    shares = (positive / (epsilon + positive.sum())).to(maps[0].dtype)
    fused = shares[0] * maps[0]
    for share, each in zip(shares[1:], maps[1:], strict=True):
        fused = fused + share * each
    return fused
