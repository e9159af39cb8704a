"""Heatmaps of joints: a peak at each joint, and the squared error against such peaks."""

from __future__ import annotations

import torch
from torch import Tensor

from mmdet_ext.functional.numerics.checks import check_number, check_that, is_whole
from mmdet_ext.functional.numerics.precision import promote_half

__all__ = ['hard_keypoint_mean', 'heatmap_mse_loss', 'joint_cells', 'joint_heatmaps']


def joint_cells(
    keypoints: Tensor, visible: Tensor, shape: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Find the cell of a map in which each joint lies.

    Args:
        keypoints: x and y, in cells; the centre of the first cell is (0, 0). (..., 2)
        visible: whether the joint is labelled, (...), bool, or numbers above 0.5.
        shape: H and W of the map.

    Returns:
        tuple: number y * W + x of the cell, (...), int64, 0 where there is none; and whether
        there is one: the joint is labelled, finite, and inside the map, (...), bool.

    >>> joint_cells(torch.tensor([[1.4, 0.6], [9.0, 0.0]]), torch.ones(2), (2, 4))
    (tensor([5, 0]), tensor([ True, False]))
    """
    height, width = shape
    (places,) = promote_half(keypoints)
    finite = places.isfinite().all(-1)
    rounded = (places + 0.5).floor()
    size = rounded.new_tensor([width, height])
    inside = finite & ((rounded >= 0) & (rounded < size)).all(-1) & (visible.to(places.dtype) > 0.5)
    cell = rounded.where(inside[..., None], 0).long()
    return cell[..., 1] * width + cell[..., 0], inside


def joint_heatmaps(
    keypoints: Tensor,
    visible: Tensor,
    shape: tuple[int, int],
    sigma: float,
    unbiased: bool = False,
) -> Tensor:
    r"""Draw each joint of each person as a Gaussian around its cell, in the map of the joint.

    .. math:: Y_{k p} = \max_n \exp\left(-\frac{|p - c_{nk}|^2}{2 \sigma^2}\right)

    over the people n whose joint k is labelled, for pixels p at most :math:`3 \sigma` from the cell
    :math:`c_{nk}` in x and in y, and 0 elsewhere. A joint outside the map is drawn as far as its
    Gaussian reaches into it. An unbiased Gaussian lies around the joint itself, wherever in its
    cell that is, so that the maps hold its place.

    Args:
        keypoints: x and y, in cells, of N people and K joints, (B, N, K, 2).
        visible: whether the joint is labelled, (B, N, K), bool, or numbers above 0.5. Joints that
            are not finite are not drawn.
        shape: H and W of a map.
        sigma: standard deviation, in cells, above 0.
        unbiased: whether Gaussians lie around joints instead of their cells.

    Returns:
        Tensor: (B, K, H, W), float32, or float64 with the keypoints; 1 in the cells of joints, or
        less where they are unbiased.

    References:
        Newell et al., Associative Embedding: End-to-End Learning for Joint Detection and Grouping,
        2017, section 3.2; Cao et al., Realtime Multi-Person 2D Pose Estimation using Part Affinity
        Fields, 2017, equations 6 and 7; Huang et al., The Devil is in the Details: Delving into
        Unbiased Data Processing for Human Pose Estimation, 2020, for the unbiased ones.

    >>> joint_heatmaps(torch.tensor([[[[1.2, 0.0]]]]), torch.ones(1, 1, 1), (1, 4), 0.5)
    tensor([[[[0.1353, 1.0000, 0.1353, 0.0000]]]])
    """
    check_number('sigma', sigma, above=0, finite=True)
    height, width = shape
    (places,) = promote_half(keypoints)
    images, _, joints = visible.shape
    dtype, device = places.dtype, places.device
    maps = torch.zeros(images * joints * height * width, dtype=dtype, device=device)
    reach = int(3 * sigma)
    size = places.new_tensor([width, height])
    cells = (places + 0.5).floor()
    near = ((cells >= -reach) & (cells < size + reach)).all(-1)
    drawn = near & (visible.to(dtype) > 0.5)
    image, _, joint = drawn.nonzero(as_tuple=True)
    cell = cells[drawn].long()
    step = torch.arange(-reach, reach + 1, device=device)
    # Values along columns and along rows, (M, S), or (1, S) where they are those of any cell.
    shift = cells[drawn] - places[drawn] if unbiased else places.new_zeros(1, 2)
    across, down = (
        ((step.to(dtype) + shift[:, axis, None]).square() / (-2 * sigma**2)).exp()
        for axis in (0, 1)
    )
    x, y = cell[:, :1] + step, cell[:, 1:] + step
    plane = (image * joints + joint) * (height * width)
    place = plane[:, None, None] + y[:, :, None] * width + x[:, None, :]
    inside = ((y >= 0) & (y < height))[:, :, None] & ((x >= 0) & (x < width))[:, None, :]
    value = (down[:, :, None] * across[:, None]).expand(place.shape)
    maps.scatter_reduce_(0, place[inside], value[inside], 'amax')
    return maps.view(images, joints, height, width)


def heatmap_mse_loss(
    heatmaps: Tensor,
    targets: Tensor,
    weights: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    positive_threshold: float | None = None,
    positive_weight: float = 1.0,
) -> Tensor:
    r"""Compute the mean squared error of each heatmap.

    .. math:: L_{bk} = \frac{w_{bk}}{H W} \sum_p m_{bp} \, a_{bkp} \, (h_{bkp} - y_{bkp})^2,
        \quad a = \begin{cases} a^+ & y_{bkp} \ge t \\ 1 & \text{otherwise} \end{cases}

    Args:
        heatmaps: h, (B, K, H, W).
        targets: y, (B, K, H, W).
        weights: w of each joint, such as its visibility, (B, K), or of each pixel, (B, K, H, W).
        mask: m, 0 where pixels do not count, (B, K, H, W) or (B, 1, H, W).
        positive_threshold: t, from which on a target is a positive; None for no difference.
        positive_weight: weight of positives, at least 0. Most pixels of a heatmap are background.

    Returns:
        Tensor: (B, K), float32, or float64 with an input; its mean is the usual loss. Pixels of
        weight or mask 0 have no gradient, also where the heatmap is not finite.

    Raises:
        ValueError: for shapes that do not fit, or options out of their range.

    References:
        Cao et al., 2017 (see `joint_heatmaps`), equation 5 with the mask W(p).

    >>> heatmap_mse_loss(torch.zeros(1, 1, 1, 4), torch.tensor([[[[0.0, 1.0, 0.0, 0.0]]]]))
    tensor([[0.2500]])
    """
    if heatmaps.dim() != 4 or heatmaps.shape != targets.shape:
        raise ValueError(
            'heatmaps and targets must be (B, K, H, W) of one shape, got '
            f'{tuple(heatmaps.shape)} and {tuple(targets.shape)}'
        )
    if positive_threshold is not None:
        check_number('positive_threshold', positive_threshold, finite=True)
    check_number('positive_weight', positive_weight, least=0, finite=True)
    heatmaps, targets = promote_half(heatmaps, targets)
    factor = _pixel_weights(heatmaps, weights, mask)
    if positive_threshold is not None and positive_weight != 1:
        part = torch.where(targets >= positive_threshold, positive_weight, 1.0)
        factor = part if factor is None else factor * part
    difference = heatmaps - targets
    if factor is None:
        return difference.square().mean((2, 3))
    # A difference that does not count may be infinite, and 0 times infinity is no number.
    difference = difference.masked_fill(factor == 0, 0)
    return (difference.square() * factor).mean((2, 3))


def _pixel_weights(heatmaps: Tensor, weights: Tensor | None, mask: Tensor | None) -> Tensor | None:
    """Return the product of weights and mask in a shape that extends to the heatmaps'."""
    images, joints, height, width = heatmaps.shape
    factor = None
    if weights is not None:
        if weights.shape not in (heatmaps.shape[:2], heatmaps.shape):
            raise ValueError(
                f'weights must be {(images, joints)}, one per heatmap, or '
                f'{tuple(heatmaps.shape)}, one per pixel, got {tuple(weights.shape)}'
            )
        factor = weights.to(heatmaps.dtype).view(*weights.shape, *[1] * (4 - weights.dim()))
    if mask is not None:
        wanted = ((images, joints, height, width), (images, 1, height, width))
        if tuple(mask.shape) not in wanted:
            raise ValueError(f'mask must be {wanted[0]} or {wanted[1]}, got {tuple(mask.shape)}')
        mask = mask.to(heatmaps.dtype)
        factor = mask if factor is None else factor * mask
    return factor


def hard_keypoint_mean(loss: Tensor, count: int) -> Tensor:
    r"""Average the largest losses of each image: online mining of hard keypoints.

    .. math:: L_b = \frac{1}{n} \sum_{k \in \text{top}_n(L_{b\cdot})} L_{bk}

    Args:
        loss: loss of each heatmap, (B, K).
        count: n, from 1 to K; a larger one counts as K.

    Returns:
        Tensor: (B,).

    Raises:
        ValueError: for a count below 1.

    References:
        Chen et al., Cascaded Pyramid Network for Multi-Person Pose Estimation, 2018, section 3.2.
    """
    check_that(is_whole(count) and count >= 1, 'count', count, 'a whole number from 1 on')
    return loss.topk(min(count, loss.shape[1]), 1).values.mean(1)
