"""Tags that tell people apart: the grouping loss of associative embedding."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from mmdet_ext.functional.numerics.checks import check_number, check_one_of
from mmdet_ext.functional.numerics.precision import promote_half

__all__ = ['GroupingLoss', 'GroupingNorm', 'TagDistance', 'grouping_loss']

#: Divisors of pull and push; `grouping_loss` has them.
GroupingNorm = Literal['paper', 'notes', 'mmpose']
#: How tags of several dimensions are compared: as vectors, or dimension by dimension.
TagDistance = Literal['vector', 'per_dimension']

# MMPose adds it to its divisors.
_EPS = 1e-6


class GroupingLoss(NamedTuple):
    """Both parts of the loss of each image.

    Attributes:
        pull: spread of the tags of each person's joints, (B,).
        push: similarity of the mean tags of people, (B,).
    """

    pull: Tensor
    push: Tensor


def grouping_loss(
    tags: Tensor,
    cells: Tensor,
    visible: Tensor,
    *,
    normalization: GroupingNorm = 'paper',
    distance: TagDistance = 'vector',
    sigma: float = 1.0,
) -> GroupingLoss:
    r"""Compute how far tags differ within people, and how similar they are between people.

    With :math:`h_{nk}` the tag at joint k of person n, :math:`K_n` the number of his labelled
    joints, :math:`\bar h_n` their mean, and N the number of people with a labelled joint:

    .. math::
        L_{pull} &= \frac{1}{N} \sum_n \frac{1}{c_n} \sum_k |h_{nk} - \bar h_n|^2 \\
        L_{push} &= \frac{1}{Z} \sum_n \sum_{n'}
            \exp\left(-\frac{|\bar h_n - \bar h_{n'}|^2}{2 \sigma^2}\right)

    ========= ============== ==================== =====================================
    divisors  :math:`c_n`    Z                    pair n = n'
    ========= ============== ==================== =====================================
    'paper'   1              :math:`N^2`          counted: the least push is 1 / N
    'notes'   :math:`K_n`    :math:`N^2`          counted: the least push is 1 / N
    'mmpose'  :math:`K_n T`  :math:`N (N - 1)`    counted: the least push is 1 / (N - 1);
                                                  a person alone has push 0
    ========= ============== ==================== =====================================

    T is the dimension of a tag. The pair n = n' adds a constant, without gradient. MMPose's
    exponent has no 1/2, which is :math:`\sigma = \sqrt{1/2}`, and its divisors
    have :math:`10^{-6}` added.

    Args:
        tags: maps of tags, (B, T * K, H, W), all K joints of the first dimension first.
        cells: number y * W + x of the cell of each joint, (B, N, K), int64 (`joint_cells`).
        visible: whether the joint counts, (B, N, K), bool. Rows without one are no people.
        normalization: the divisors.
        distance: 'vector' compares tags by their Euclidean distance; 'per_dimension' adds a push of
            each dimension alone, as MMPose does.
        sigma: width of the push, in units of tags, above 0.

    Returns:
        GroupingLoss: (B,) each, float32, or float64 with the tags; 0 with a graph where an image
        has no people.

    Raises:
        ValueError: for shapes that do not fit, cells outside the maps (on a CPU), or an option out
            of its range.

    References:
        Newell et al., Associative Embedding: End-to-End Learning for Joint Detection and Grouping,
        2017, section 3.2.

    >>> tags = torch.tensor([[[[0.0, 1.0, 4.0]], [[2.0, 1.0, 4.0]]]])
    >>> cells, visible = torch.tensor([[[0, 0], [2, 2]]]), torch.ones(1, 2, 2, dtype=torch.bool)
    >>> pull, push = grouping_loss(tags, cells, visible)
    >>> pull, push
    (tensor([1.]), tensor([0.5056]))

    The tags of the first person are 0 and 2, of mean 1, those of the second 4 and 4: the pull is
    (1 + 1) / 2, and the push (2 + 2 exp(-9/2)) / 4.
    """
    check_one_of('normalization', normalization, GroupingNorm)
    check_one_of('distance', distance, TagDistance)
    check_number('sigma', sigma, above=0, finite=True)
    own, counted = _own_tags(tags, cells, visible)
    dimensions = own.shape[1]
    # Sums over joints: (B, 1, N) and (B, T, N).
    joints = counted.sum(2)
    mean = own.sum(2) / joints.clamp(min=1)
    spread = ((own - mean[:, :, None]) * counted).square().sum((1, 2))
    here = joints[:, 0] > 0
    people = here.sum(1)
    if normalization != 'paper':
        spread = spread / joints[:, 0].clamp(min=1)
    if normalization == 'mmpose':
        spread = spread / dimensions
    alike = _similarity(mean, distance, 2 * sigma**2)
    alike = (alike * (here[:, :, None] & here[:, None, :])).sum((1, 2))
    number = people.to(spread.dtype)
    if normalization == 'mmpose':
        pull = spread.sum(1) / (number + _EPS)
        push = alike / ((number - 1) * number + _EPS) * (people > 1)
    else:
        pull, push = spread.sum(1) / number.clamp(min=1), alike / number.square().clamp(min=1)
    return GroupingLoss(pull, push)


def _own_tags(tags: Tensor, cells: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
    """Read the tags of all joints, (B, T, K, N), and what counts among them, (B, 1, K, N)."""
    if cells.dim() != 3 or cells.shape != visible.shape or cells.is_floating_point():
        raise ValueError(
            'cells must be integers (B, N, K), and visible of the same shape, got '
            f'{tuple(cells.shape)} of {cells.dtype} and {tuple(visible.shape)}'
        )
    images, _, joints = cells.shape
    if tags.dim() != 4 or len(tags) != images or tags.shape[1] % max(joints, 1):
        raise ValueError(
            f'tags must be ({images}, T * {joints}, H, W) for cells {tuple(cells.shape)}, got '
            f'{tuple(tags.shape)}'
        )
    counted = visible.bool()
    cells = cells.where(counted, 0)
    places = tags.shape[2] * tags.shape[3]
    if cells.device.type == 'cpu' and cells.numel():
        low, high = (int(value) for value in cells.aminmax())
        if low < 0 or high >= places:
            raise ValueError(
                f'cells must be from 0 to {places - 1} for maps of {tuple(tags.shape[2:])}, got '
                f'{low} to {high}: work them out with the size of the maps'
            )
    (maps,) = promote_half(tags)
    maps = maps.reshape(images, -1, joints, places)
    index = cells.transpose(1, 2)[:, None].expand(-1, maps.shape[1], -1, -1)
    mask = counted.transpose(1, 2)[:, None]
    return maps.gather(3, index).masked_fill(~mask, 0), mask.to(maps.dtype)


def _similarity(mean: Tensor, distance: TagDistance, width: float) -> Tensor:
    """Compute exp(-d / width) of all pairs, (B, N, N), from mean tags (B, T, N)."""
    square = (mean[..., None] - mean[:, :, None]).square()
    if distance == 'vector':
        return torch.exp(square.sum(1) / -width)
    return torch.exp(square / -width).sum(1)
