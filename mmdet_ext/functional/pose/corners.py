"""Grouping loss of corners: which upper left and lower right corners are of one object."""

from __future__ import annotations

import torch
from torch import Tensor

from mmdet_ext.functional.numerics.checks import check_number
from mmdet_ext.functional.numerics.precision import promote_half
from mmdet_ext.functional.pose.grouping import GroupingLoss

__all__ = ['corner_grouping_loss']


def corner_grouping_loss(
    top_left: Tensor,
    bottom_right: Tensor,
    corners: Tensor,
    valid: Tensor,
    margin: float = 1.0,
) -> GroupingLoss:
    r"""Compute how far the embeddings of each object's corners differ, and those of objects agree.

    With :math:`t_n` and :math:`b_n` the embeddings of both corners of object n,
    :math:`e_n = (t_n + b_n) / 2`, and N objects in an image:

    .. math::
        L_{pull} &= \frac{1}{N} \sum_n |t_n - e_n|^2 + |b_n - e_n|^2 \\
        L_{push} &= \frac{1}{N (N - 1)} \sum_n \sum_{m \ne n}
            \max(0, \Delta - \| e_n - e_m \|_1)

    :math:`\|\cdot\|_1` is the sum of magnitudes. With embeddings of one dimension, as in the paper,
    it is mmdet's AssociativeEmbeddingLoss. With several, mmdet takes each dimension for an object
    of its own: it pushes the dimensions of one object apart.

    Args:
        top_left: map of embeddings, (B, T, H, W).
        bottom_right: (B, T, H, W).
        corners: row and column of the upper left, and of the lower right corner of G objects,
            (B, G, 2, 2), int64.
        valid: whether a row is an object, (B, G), bool; False on padding.
        margin: :math:`\Delta`, at least 0.

    Returns:
        GroupingLoss: pull and push of each image, (B,), float32, or float64 with the maps; 0 with a
        graph where an image has no object, and push 0 where it has one.

    Raises:
        ValueError: for shapes that do not fit, corners outside the maps (on a CPU), or a margin
            below 0.

    References:
        Law and Deng, CornerNet: Detecting Objects as Paired Keypoints, 2018, equations 4 and 5.

    >>> maps = torch.tensor([[[[0.0, 3.0]]]])
    >>> corners = torch.tensor([[[[0, 0], [0, 0]], [[0, 1], [0, 1]]]])
    >>> loss = corner_grouping_loss(maps, maps - 2.0, corners, torch.ones(1, 2) > 0, margin=4.0)
    >>> loss.pull, loss.push
    (tensor([2.]), tensor([1.]))

    Each corner is 1 from its mean; the means, -1 and 2, are 3 apart.
    """
    check_number('margin', margin, least=0, finite=True)
    if top_left.dim() != 4 or top_left.shape != bottom_right.shape:
        raise ValueError(
            'top_left and bottom_right must be (B, T, H, W) of one shape, got '
            f'{tuple(top_left.shape)} and {tuple(bottom_right.shape)}'
        )
    images, objects = valid.shape
    if len(top_left) != images or corners.shape != (images, objects, 2, 2):
        raise ValueError(
            f'corners must be ({len(top_left)}, G, 2, 2) and valid ({len(top_left)}, G), got '
            f'{tuple(corners.shape)} and {tuple(valid.shape)}'
        )
    height, width = top_left.shape[2:]
    valid = valid.bool()
    corners = corners.where(valid[:, :, None, None], 0)
    size = corners.new_tensor([height, width])
    outside = (corners < 0) | (corners >= size)
    if corners.device.type == 'cpu' and bool(outside.any()):
        raise ValueError(
            f'corners must be rows from 0 to {height - 1} and columns from 0 to {width - 1}, got '
            f'{corners[outside.any(-1)][0].tolist()}'
        )
    top_left, bottom_right = promote_half(top_left, bottom_right)
    cells = corners[..., 0] * width + corners[..., 1]
    mask = valid[:, None]
    one, other = (
        maps.flatten(2).gather(2, cells[:, None, :, end].expand(-1, maps.shape[1], -1))
        for end, maps in enumerate((top_left, bottom_right))
    )
    one, other = one.masked_fill(~mask, 0), other.masked_fill(~mask, 0)
    mean = (one + other) / 2
    spread = (one - mean).square() + (other - mean).square()
    number = valid.sum(1).to(mean.dtype)
    pull = spread.sum((1, 2)) / number.clamp(min=1)
    apart = (mean[..., None] - mean[:, :, None]).abs().sum(1)
    pair = valid[:, :, None] & valid[:, None]
    pair = pair & ~torch.eye(objects, dtype=torch.bool, device=valid.device)
    push = (margin - apart).clamp(min=0).masked_fill(~pair, 0).sum((1, 2))
    return GroupingLoss(pull, push / (number * (number - 1)).clamp(min=1))
