"""Losses of aligned boxes that compare their corners: MPDIoU and NWD."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmdet_ext.functional.boxes._coordinates import squared_norm
from mmdet_ext.functional.boxes._powers import bounded_power
from mmdet_ext.functional.boxes.checks import check_aligned_boxes
from mmdet_ext.functional.boxes.overlap import box_wasserstein
from mmdet_ext.functional.boxes.pair import BoxPair, over_pairs
from mmdet_ext.functional.numerics.checks import check_number, check_that

__all__ = ['mpdiou_loss', 'nwd_loss']


def mpdiou_loss(
    pred: Tensor,
    target: Tensor,
    image_size: tuple[float, float] | None = None,
    eps: float = 1e-6,
    power: float = 1.0,
    inner_ratio: float = 1.0,
) -> Tensor:
    r"""Compute the minimum-point-distance IoU loss of aligned box pairs.

    .. math::
        L = 1 - IoU + \frac{d_1^2}{D} + \frac{d_2^2}{D}

    with :math:`d_1` the distance between the smaller corners of ``pred`` and ``target``,
    :math:`d_2` that between the larger ones, and :math:`D = w^2 + h^2` of the ``image_size``.

    Args:
        pred: (..., 4) corners x1, y1, x2, y2 in pixels; half precision is computed in float32.
        target: (..., 4), the same shape.
        image_size: width and height of the image, px, above 0. None takes the smallest box around
            both boxes instead, which deviates from the paper: a head does not pass the image's
            size.
        eps: smallest squared length to divide by, px**2; its square root is the smallest side.
        power: exponent of the IoU and of each penalty, above 0.
        inner_ratio: factor on both boxes' sides for the overlap term, above 0.

    Returns:
        Tensor: (...), in [0, 3], float32 or float64. Exactly 0 for equal boxes of any size.
        The gradient is finite, in float16 too. A squared distance above D counts as D.

    Raises:
        ValueError: for an option out of its range, or if the shapes differ or do not end in 4.

    >>> mpdiou_loss(torch.tensor([0., 0., 2., 2.]), torch.tensor([1., 0., 3., 2.]))
    tensor(0.8205)

    The result is 1 - 1/3 + 1/13 + 1/13.

    References:
        Ma and Xu, MPDIoU: A Loss for Efficient and Accurate Bounding Box Regression, 2023,
        section 3.
    """
    _check_image_size(image_size)
    return over_pairs(_mpdiou, pred, target, eps, power, inner_ratio, image_size)


def _mpdiou(
    pair: BoxPair, power: float, inner_ratio: float, image_size: tuple[float, float] | None
) -> Tensor:
    low = squared_norm(pair.low - pair.target_low)
    high = squared_norm(pair.high - pair.target_high)
    if image_size is None:
        whole = squared_norm(pair.outer_sides())
    else:
        whole = torch.full_like(low.detach(), math.hypot(*image_size) ** 2)
    penalty = bounded_power(pair.share(low, whole), power, 2)
    penalty = penalty + bounded_power(pair.share(high, whole), power, 2)
    return pair.overlap_term(power, inner_ratio) + penalty


def _check_image_size(image_size: Any) -> None:
    """Raise ValueError unless ``image_size`` is None or (width, height), both above 0."""
    if image_size is None:
        return
    is_pair = isinstance(image_size, Sequence) and len(image_size) == 2
    check_that(is_pair, 'image_size', image_size, '(width, height)')
    for side in image_size:
        why = 'it is (width, height) in pixels'
        check_number('image_size', side, above=0, finite=True, why=why)


def nwd_loss(pred: Tensor, target: Tensor, constant: float = 12.8) -> Tensor:
    r"""Compute the loss of the normalised Gaussian Wasserstein distance of aligned box pairs.

    .. math::
        L = 1 - e^{-W / C}

    with :math:`W` the :func:`~mmdet_ext.functional.boxes.overlap.box_wasserstein` of ``pred`` and
    ``target``, and :math:`C` the ``constant``. Without an overlap term the loss has no
    ``inner_ratio``; a ``power`` would only change the constant.

    Args:
        pred: (..., 4) corners x1, y1, x2, y2 in pixels; half precision is computed in float32.
        target: (..., 4), the same shape.
        constant: px, above 0; about the size of the objects. The paper's authors use 12.8 for
            AI-TOD.

    Returns:
        Tensor: (...), in [0, 1], float32 or float64. Exactly 0 for equal boxes, where the
        gradient is 0. Inverted boxes have a gradient as any others. For distances far above the
        constant the gradient vanishes.

    Raises:
        ValueError: for a ``constant`` not above 0, or if the shapes differ or do not end in 4.

    >>> pair = torch.tensor([0., 0., 2., 2.]), torch.tensor([3., 4., 5., 6.])
    >>> nwd_loss(*pair, constant=5)
    tensor(0.6321)

    The centres are 5 px apart, which gives 1 - exp(-1).

    References:
        Wang et al., A Normalized Gaussian Wasserstein Distance for Tiny Object Detection, 2021,
        section 3.4.
    """
    check_aligned_boxes(pred, target)
    why = "take about the objects' size in pixels"
    check_number('constant', constant, above=0, finite=True, why=why)
    return -(box_wasserstein(pred, target) / -constant).expm1()
