r"""Terms of the losses of YOLOv3 and YOLOv4, which their head puts together.

With the sum over the priors of an image, the loss of YOLOv3 is

.. math::
    \sum_{obj} (2 - w h) \left[ d(\sigma(t_{xy}), \hat\sigma_{xy}) + (t_{wh} - \hat t_{wh})^2
    \right] + \sum_{obj} d(\sigma(t_o), 1) + \lambda_{noobj} \sum_{noobj} d(\sigma(t_o), 0)
    + \sum_{obj} \sum_c d(\sigma(t_c), \hat p_c)

with :math:`t` the logits of a prior and :math:`\hat\sigma, \hat t, \hat p` its targets, d the
binary cross entropy or the squared error, obj the priors that have a box, and noobj those that have
none and are not ignored. :math:`2 - w h` is the `size_weight`, and the two sums over the objectness
have the `objectness_weight`. YOLOv4 puts an overlap loss of the decoded boxes in place of the first
sum; `bounded_log_side` keeps such boxes finite.

References:
    Redmon and Farhadi, YOLOv3: An Incremental Improvement, 2018, sections 2.1 and 2.2; the factor
    2 - w h is in the authors' code alone, Darknet, src/yolo_layer.c. Bochkovskiy et al., YOLOv4:
    Optimal Speed and Accuracy of Object Detection, 2020, section 3.4.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmdet_ext.functional.numerics.bounds import at_most, not_negative
from mmdet_ext.functional.numerics.checks import check_number
from mmdet_ext.functional.numerics.precision import promote_half

__all__ = ['bounded_log_side', 'objectness_weight', 'size_weight']

#: Logarithm of a side, in sides of the anchor, from which on its exponential is a straight line.
LARGEST_LOG = 10.0


def size_weight(sides: Tensor, image_sides: Tensor) -> Tensor:
    r"""Compute the weight of a box in the terms of its place and size, larger for smaller boxes.

    .. math:: 2 - w h

    with :math:`w, h` the ``sides`` as shares of the ``image_sides``. An error of one pixel matters
    more for a small box, which the squared errors of the offsets do not show.

    Args:
        sides: (..., 2) width and height of the ground-truth boxes, px; half precision is computed
            in float32. A side counts as no longer than that of the image, and as no shorter than 0.
        image_sides: (..., 2) width and height of the images, px, above 0, broadcastable with
            ``sides``.

    Returns:
        Tensor: (...), in [1, 2].

    >>> size_weight(torch.tensor([[50., 20.], [100., 40.]]), torch.tensor([100., 40.]))
    tensor([1.7500, 1.0000])

    The first box has half the width and half the height of the image: 2 - 1 / 4.
    """
    sides, image_sides = promote_half(sides, image_sides)
    return 2 - (sides / image_sides).clamp(0, 1).prod(-1)


def objectness_weight(positive: Tensor, background: Tensor, lambda_noobj: float = 1.0) -> Tensor:
    """Compute the weight of each prior in the objectness: 1, ``lambda_noobj``, or 0 if ignored.

    Args:
        positive: (...) bool, priors that have a box.
        background: (...) bool, priors that have none and are not ignored.
        lambda_noobj: weight of the background, from 0; 0.5 in YOLOv1, 1 in YOLOv3.

    Returns:
        Tensor: (...) float32.

    Raises:
        ValueError: if ``lambda_noobj`` is not finite, or below 0.

    >>> has_box, has_none = torch.tensor([[True, False, False], [False, True, False]])
    >>> objectness_weight(has_box, has_none, 0.5)
    tensor([1.0000, 0.5000, 0.0000])
    """
    check_number('lambda_noobj', lambda_noobj, least=0, finite=True)
    return torch.where(positive, 1.0, lambda_noobj * background.float())


def bounded_log_side(log_side: Tensor) -> Tensor:
    r"""Bound the logarithm of a predicted side, so that the side grows no faster than a line.

    .. math::
        t' = t \text{ up to } T = 10, \quad t' = T + \ln(1 + t - T) \text{ beyond}

    with :math:`t` the ``log_side``. The side :math:`e^{t'}` is :math:`e^t` up to 22026 sides of the
    anchor, and beyond its tangent there, :math:`e^T (1 + t - T)`: it stays finite, and so do the
    overlap and its gradient.

    Args:
        log_side: (...) logarithm of a side over that of the anchor; half precision is computed in
            float32.

    Returns:
        Tensor: (...).

    >>> bounded_log_side(torch.tensor([-3., 2., 10., 11.]))
    tensor([-3.0000,  2.0000, 10.0000, 10.6931])
    """
    (log_side,) = promote_half(log_side)
    return at_most(log_side, LARGEST_LOG) + not_negative(log_side - LARGEST_LOG).log1p()
