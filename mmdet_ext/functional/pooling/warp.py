"""Regions of images, with some of their context, warped to one size."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmdet_ext.functional.numerics.checks import check_count, check_that, check_whole
from mmdet_ext.functional.numerics.precision import promote_half

__all__ = ['check_context', 'context_boxes', 'warp_regions']


def check_context(size: int, context: int) -> None:
    """Raise ValueError unless a crop of some size has room for a region and its context.

    Args:
        size: side of the crop, px, at least 1.
        context: px of the crop on each side of the region, at least 0, less than half of ``size``.
    """
    check_count('size', size)
    check_whole('context', context, least=0)
    check_that(2 * context < size, 'context', context, f'less than half of size={size}')


def context_boxes(boxes: Tensor, size: int, context: int) -> Tensor:
    r"""Widen boxes by the context that a warped crop shows around them.

    The box fills the inner :math:`s - 2p` pixels of the crop, so that the crop shows
    :math:`s / (s - 2p)` times its width and height, about its centre, with :math:`s` = ``size`` and
    :math:`p` = ``context``.

    Args:
        boxes: (N, 4), corners, px.
        size: side of the crop, px.
        context: px of the crop on each side of the box, less than half of ``size``.

    Returns:
        Tensor: (N, 4), float32 or float64.

    Raises:
        ValueError: if ``context`` or ``size`` is outside of its range.

    Example:
        With 8 of 32 px on each side, the crop shows twice the box.

        >>> context_boxes(torch.tensor([[10.0, 10.0, 30.0, 20.0]]), size=32, context=8)
        tensor([[ 0.,  5., 40., 25.]])

    References:
        Girshick et al., Rich feature hierarchies for accurate object detection and semantic
        segmentation, 2014, appendix A.
    """
    check_context(size, context)
    (boxes,) = promote_half(boxes)
    first, last = boxes.split(2, 1)
    centre, half = (first + last) / 2, (last - first) / 2
    half = half * (size / (size - 2 * context))
    return torch.cat([centre - half, centre + half], 1)


def warp_regions(images: Tensor, rois: Tensor, size: int, context: int = 16) -> Tensor:
    r"""Crop regions with some context, each stretched to one square, as R-CNN does.

    Pixel (i, j) of a crop is the image at
    :math:`x = x_1 + (j + \frac12) \frac{x_2 - x_1}{s}`, and :math:`y` from i in the same way, by
    linear interpolation between the centres of pixels. :math:`(x_1, y_1, x_2, y_2)` is the box with
    its context (`context_boxes`), :math:`s` = ``size``. The ratio of the sides is not kept. Outside
    of the image the crop is 0, which is the mean where images are normalised.

    Args:
        images: (B, C, H, W), normalised.
        rois: (N, 5), index of the image in the batch and corners, px.
        size: side of the crops, px.
        context: px of a crop on each side of the region, less than half of ``size``. The paper has
            16 of 227.

    Returns:
        Tensor: (N, C, size, size), float32 or float64. A region without area gives constant rows or
        columns.

    Raises:
        ValueError: if ``context`` or ``size`` is outside of its range, or if ``images`` or ``rois``
            have another number of dimensions.

    Example:
        >>> image = torch.arange(16.0).reshape(1, 1, 4, 4)
        >>> warp_regions(image, torch.tensor([[0.0, 1.0, 1.0, 3.0, 3.0]]), size=2, context=0)
        tensor([[[[ 5.,  6.],
                  [ 9., 10.]]]])

    References:
        Girshick et al., Rich feature hierarchies for accurate object detection and semantic
        segmentation, 2014, section 2.1 and appendix A.
    """
    if images.dim() != 4 or rois.dim() != 2 or rois.shape[1] != 5:
        raise ValueError(
            'images must be (B, C, H, W) and rois (N, 5), got '
            f'{tuple(images.shape)} and {tuple(rois.shape)}'
        )
    images, rois = promote_half(images, rois)
    boxes = context_boxes(rois[:, 1:], size, context)
    first, last = boxes.split(2, 1)
    steps = (torch.arange(size, device=boxes.device, dtype=boxes.dtype) + 0.5) / size
    # (N, 2, size): places along x and y, in px, then from -1 to 1 over the image.
    places = first[:, :, None] + (last - first)[:, :, None] * steps
    sides = boxes.new_tensor([images.shape[3], images.shape[2]])
    x, y = (places * (2 / sides)[:, None] - 1).unbind(1)
    grid = torch.stack(torch.broadcast_tensors(x[:, None, :], y[:, :, None]), -1)
    crops = images.new_zeros(len(rois), images.shape[1], size, size)
    for number, image in enumerate(images):
        chosen = (rois[:, 0] == number).nonzero().squeeze(1)
        if len(chosen):
            # One tall crop holds all regions of an image: the image need not be copied.
            tall = grid[chosen].reshape(1, len(chosen) * size, size, 2)
            found = F.grid_sample(image[None], tall, mode='bilinear', align_corners=False)
            found = found[0].unflatten(1, (len(chosen), size)).transpose(0, 1)
            crops = crops.index_copy(0, chosen, found)
    return crops
