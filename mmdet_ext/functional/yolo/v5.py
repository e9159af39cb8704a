r"""YOLOv5: boxes that reach into the next cells, and a loss balanced over levels.

A prior of the level of stride s predicts :math:`t_x, t_y, t_w, t_h, t_o` and C logits. Its box is

.. math::
    b_x = s (c_x + 2 \sigma(t_x) - 1/2), \quad b_y = s (c_y + 2 \sigma(t_y) - 1/2), \quad
    b_w = p_w (2 \sigma(t_w))^2, \quad b_h = p_h (2 \sigma(t_h))^2

with :math:`c_x, c_y` column and row of the cell and :math:`p_w, p_h` the sides of the anchor. The
centre lies within half a cell around the prior's own, where `yolov5_match` puts it, and a side is
at most four times that of the anchor, which is the ratio of that rule. The loss of a batch of B
images is

.. math::
    L = B \left[ \lambda_b \sum_l \frac{1}{|P_l|} \sum_{p \in P_l} (1 - CIoU_p)
    + \lambda_k \sum_l \frac{1}{|P_l| C} \sum_{p \in P_l} \sum_c BCE(t_{p,c}, [c = k_p])
    + \lambda_o \sum_l w_l \frac{1}{|A_l|} \sum_{p \in A_l} BCE(t_{p,o}, q_p) \right]

with :math:`P_l` the priors of level l that have a box and :math:`A_l` all of its priors, over the
images; :math:`k_p` the label; :math:`q_p` the `objectness_target`, 0 without a box; :math:`w_l` the
weight of the level, 4, 1 and 0.4 for the strides 8, 16 and 32. :math:`\lambda` are those of a
config times the `yolov5_scales`.

References:
    Jocher, YOLOv5, https://github.com/ultralytics/yolov5, release 6, for which there is no paper:
    models/yolo.py and utils/loss.py. Facts and formulas alone are taken from there.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mmdet_ext.functional.boxes.iou_losses import ciou_loss
from mmdet_ext.functional.boxes.overlap import box_centers
from mmdet_ext.functional.numerics.checks import check_count, check_number, check_that
from mmdet_ext.functional.numerics.precision import promote_half

__all__ = [
    'YOLOV5Scales',
    'decode_yolov5',
    'encode_yolov5',
    'level_means',
    'objectness_target',
    'yolov5_scales',
]

#: Classes, levels and side of the images, px, at which the authors chose the weights of the loss.
TUNED_CLASSES, TUNED_LEVELS, TUNED_SIDE = 80, 3, 640
#: Largest side of a predicted box, in sides of its anchor.
LARGEST = 4.0


class YOLOV5Scales(NamedTuple):
    """Factors on the terms of the loss."""

    box: float
    classes: float
    objectness: float


def yolov5_scales(num_classes: int, levels: int = 3, image_size: float = 640) -> YOLOV5Scales:
    r"""Compute the factors that carry the weights of the loss over to other data.

    .. math::
        f_{box} = \frac{3}{n}, \quad f_{classes} = \frac{3}{n} \frac{C}{80}, \quad
        f_{objectness} = \frac{3}{n} \left(\frac{s}{640}\right)^2

    with :math:`C` the ``num_classes``, :math:`n` the ``levels`` and :math:`s` the ``image_size``.
    A mean over fewer classes is larger, as the class of the box weighs more in it; a small image
    has fewer empty priors for each box.

    Args:
        num_classes: C, at least 1. With one class there is nothing to learn of it: the factor is 0.
        levels: number of levels, at least 1.
        image_size: longer side of the training images, px, above 0.

    Returns:
        YOLOV5Scales: the factors on the terms of boxes, classes and objectness.

    Raises:
        ValueError: if an argument is out of its range.

    >>> yolov5_scales(20, 3, 320)
    YOLOV5Scales(box=1.0, classes=0.25, objectness=0.25)
    """
    check_count('num_classes', num_classes)
    check_count('levels', levels)
    check_number('image_size', image_size, above=0, finite=True)
    share = TUNED_LEVELS / levels
    return YOLOV5Scales(
        box=share,
        classes=share * num_classes / TUNED_CLASSES if num_classes > 1 else 0.0,
        objectness=share * (image_size / TUNED_SIDE) ** 2,
    )


def decode_yolov5(raw: Tensor, priors: Tensor, stride: Tensor | float) -> Tensor:
    """Compute the corners of predicted boxes, px; the module's docstring has the formula.

    Args:
        raw: (..., 4), the numbers t_x, t_y, t_w, t_h; half precision is computed in float32.
        priors: (..., 4) corners of the anchors, centred in their cells, px, broadcastable.
        stride: side of a cell, px: a number, or (..., 1).

    Returns:
        Tensor: (..., 4) corners, px. Every side is in [0, 4] sides of the anchor.

    >>> prior = torch.tensor([[4., 4., 12., 12.]])
    >>> decode_yolov5(torch.zeros(1, 4), prior, 16.)
    tensor([[ 4.,  4., 12., 12.]])
    >>> decode_yolov5(torch.tensor([[50., 0., 50., 0.]]), prior, 16.)
    tensor([[ 8.,  4., 40., 12.]])

    The centre of the second lies one cell further right, and its width is four times the anchor's.
    """
    raw, priors = promote_half(raw, priors)
    shares = 2 * raw.sigmoid()
    center = box_centers(priors) + (shares[..., :2] - 1) * stride
    half = (priors[..., 2:] - priors[..., :2]) * shares[..., 2:].square() / 2
    return torch.cat([center - half, center + half], -1)


def encode_yolov5(boxes: Tensor, priors: Tensor, stride: Tensor | float) -> Tensor:
    """Compute the numbers with which priors predict given boxes, the inverse of `decode_yolov5`.

    Training does not need them: the loss compares boxes.

    Args:
        boxes: (..., 4) corners, px; half precision is computed in float32.
        priors: (..., 4) corners of the anchors, centred in their cells, px.
        stride: side of a cell, px: a number, or (..., 1).

    Returns:
        Tensor: (..., 4), the numbers t_x, t_y, t_w, t_h; infinite for a box at the end of what the
        prior can predict, and NaN beyond it.

    >>> prior = torch.tensor([4., 4., 12., 12.])
    >>> encode_yolov5(torch.tensor([4., 6., 12., 10.]), prior, 16.)
    tensor([ 0.0000,  0.0000,  0.0000, -0.6035])

    The box is half as high as the anchor: the share is the root of 1/2, over 2, and its logit is
    -0.6035.
    """
    boxes, priors = promote_half(boxes, priors)
    place = (box_centers(boxes) - box_centers(priors)) / stride / 2 + 0.5
    ratio = (boxes[..., 2:] - boxes[..., :2]) / (priors[..., 2:] - priors[..., :2])
    return torch.cat([place, (ratio / LARGEST).sqrt()], -1).logit()


def objectness_target(boxes: Tensor, gt_boxes: Tensor) -> Tensor:
    r"""Compute what the objectness of priors with a box learns: their CIoU, and 0 where it is less.

    .. math:: q = \max(0, CIoU)

    in which the aspect ratio always counts, as the threshold of `ciou_loss` is absent.

    Args:
        boxes: (N, 4) boxes that the priors predict, corners, px; half precision is computed in
            float32.
        gt_boxes: (N, 4) their ground truth, corners, px.

    Returns:
        Tensor: (N,) in [0, 1], without gradient.

    >>> boxes = torch.tensor([[0., 0., 2., 2.], [0., 0., 2., 2.]])
    >>> objectness_target(boxes, torch.tensor([[1., 0., 3., 2.], [8., 8., 9., 9.]]))
    tensor([0.2564, 0.0000])

    The first is 1/3 - 1/13: the centres are 1 px apart, and the outer diagonal is the root of 13.
    """
    with torch.no_grad():
        return (1 - ciou_loss(boxes, gt_boxes, aspect_thr=None)).clamp(min=0)


def level_means(
    values: Tensor, level: Tensor, levels: int, counted: Tensor | None = None
) -> Tensor:
    """Compute the mean of the values of each level, 0 for a level without values.

    Args:
        values: (..., N), one value per prior, or per prior that has a box; half precision is
            computed in float32.
        level: (N,) int64 in [0, ``levels``), or the shape of ``values``.
        levels: number of levels, at least 1.
        counted: weights of the values, of their shape, by which sum and number are taken; None
            for 1.

    Returns:
        Tensor: (levels,), with a graph to ``values`` also where nothing is counted.

    Raises:
        ValueError: if the shapes do not fit.

    >>> level_means(torch.tensor([1., 3., 5.]), torch.tensor([0, 0, 2]), 3)
    tensor([2., 0., 5.])
    """
    check_count('levels', levels)
    (values,) = promote_half(values)
    for name, other in (('level', level), ('counted', counted)):
        fits = other is None or other.shape == values.shape
        check_that(
            fits or (name == 'level' and level.shape == values.shape[-1:]),
            name,
            None if other is None else tuple(other.shape),
            f'of the shape of values, {tuple(values.shape)}',
        )
    weight = torch.ones_like(values) if counted is None else counted.to(values.dtype)
    place = level.expand(values.shape).reshape(-1)
    sums = values.new_zeros(levels).index_add(0, place, (values * weight).reshape(-1))
    counts = values.new_zeros(levels).index_add(0, place, weight.reshape(-1))
    return sums / counts.where(counts > 0, 1)
