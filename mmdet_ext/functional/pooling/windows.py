"""Windows of an image as cells of a map of features."""

from __future__ import annotations

import torch
from torch import Tensor

from mmdet_ext.functional.numerics.checks import check_count, check_number

__all__ = ['window_cells']


def window_cells(boxes: Tensor, stride: float, height: int, width: int) -> Tensor:
    r"""Project boxes of an image onto the cells of a map, as SPPNet does.

    Cell k of a map stands for a receptive field centred at pixel :math:`kS` of the image, with
    :math:`S` = ``stride``. A window takes the cells whose centres are strictly inside of it: from
    :math:`\lfloor x_1 / S \rfloor + 1` to :math:`\lceil x_2 / S \rceil - 1`, and the same of rows.
    Where there is none, it takes the cell whose centre is nearest to its own. Cells outside of the
    map become those at its border, so that every window has a cell.

    Args:
        boxes: (N, 4), corners x1, y1, x2, y2, px. Boxes without area are allowed.
        stride: px of the image per cell, above 0.
        height: rows of the map, at least 1.
        width: columns of the map, at least 1.

    Returns:
        Tensor: (N, 4), int64: first column, first row, last column, last row, all of them inside of
        the window.

    Raises:
        ValueError: if ``stride``, ``height`` or ``width`` is outside of its range, or if boxes do
            not have four columns.

    Example:
        Between 10 and 60 are the centres 16, 32 and 48 of the cells 1 to 3. Between 3 and 10 there
        is none, and 6.5 is nearest to the centre of cell 0.

        >>> window_cells(torch.tensor([[10.0, 3.0, 60.0, 10.0]]), stride=16, height=4, width=8)
        tensor([[1, 0, 3, 0]])

    References:
        He et al., Spatial Pyramid Pooling in Deep Convolutional Networks, 2014, appendix A,
        mapping a window to feature maps.
    """
    check_number('stride', stride, above=0, finite=True)
    check_count('height', height)
    check_count('width', width)
    if boxes.dim() != 2 or boxes.shape[1] != 4:
        raise ValueError(f'boxes must be (N, 4), got {tuple(boxes.shape)}')
    first, last = boxes.float().div(stride).split(2, 1)
    nearest = (first / 2 + last / 2 + 0.5).floor()
    first, last = first.floor() + 1, last.ceil() - 1
    empty = last < first
    first, last = nearest.where(empty, first), nearest.where(empty, last)
    most = torch.tensor([width, height, width, height], device=boxes.device) - 1
    return torch.cat([first, last], 1).long().clamp(min=0).minimum(most)
