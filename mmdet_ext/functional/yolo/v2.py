r"""YOLOv2: anchors in the cells of one map, with direct prediction of the centre.

A prior predicts :math:`t_x, t_y, t_w, t_h, t_o` and C logits. Its box is

.. math::
    b_x = s (c_x + \sigma(t_x)), \quad b_y = s (c_y + \sigma(t_y)), \quad
    b_w = p_w e^{t_w}, \quad b_h = p_h e^{t_h}

with :math:`s` the ``stride``, :math:`c_x, c_y` column and row of the cell and :math:`p_w, p_h` the
sides of the anchor. The centre stays within its cell. :math:`\sigma(t_o)` is learned as the IoU of
the box with its object.

References:
    Redmon and Farhadi, YOLO9000: Better, Faster, Stronger, 2017, section 2.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pixel_unshuffle

from mmdet_ext.functional.boxes.overlap import box_centers, box_iou
from mmdet_ext.functional.numerics.checks import check_number, check_that, check_whole
from mmdet_ext.functional.numerics.precision import promote_half
from mmdet_ext.functional.yolo.terms import bounded_log_side

__all__ = [
    'YOLOV2Losses',
    'YOLOV2Scales',
    'decode_yolov2',
    'encode_yolov2',
    'passthrough',
    'yolov2_loss',
]

#: Index of a prior without a box.
BACKGROUND = -1

#: Smallest side of a ground-truth box to take the logarithm of, in anchors.
LEAST_STRETCH = 1e-6


class YOLOV2Losses(NamedTuple):
    """Terms of the loss, summed over the priors of each image: (B,) each."""

    center: Tensor
    size: Tensor
    object: Tensor
    no_object: Tensor
    classes: Tensor
    prior: Tensor


class YOLOV2Scales(NamedTuple):
    """Weights of the terms, as in the authors' configurations; at least 0."""

    coord: float = 1.0
    object: float = 5.0
    no_object: float = 1.0
    classes: float = 1.0
    prior: float = 0.01


def passthrough(features: Tensor, stride: int = 2) -> Tensor:
    """Stack the features of each block of places as channels of one place.

    Channel ``(c * stride + i) * stride + j`` holds channel c of row i and column j of the block.
    Darknet's own layer numbers the channels in another order, so that its weights of the
    convolution behind it do not carry over.

    Args:
        features: (B, C, H, W).
        stride: side of a block, at least 1.

    Returns:
        Tensor: (B, C stride**2, H / stride, W / stride).

    Raises:
        ValueError: if a side of the map is no multiple of the stride.

    >>> passthrough(torch.tensor([[[[1., 2.], [3., 4.]]]])).flatten()
    tensor([1., 2., 3., 4.])

    References:
        Redmon and Farhadi, YOLO9000: Better, Faster, Stronger, 2017, section 2, "fine-grained
        features".
    """
    check_whole('stride', stride)
    height, width = features.shape[-2:]
    check_that(
        height % stride == 0 and width % stride == 0,
        'features',
        f'a map of {height} x {width}',
        f'a map whose height and width are multiples of stride={stride}',
        'pad the images to a multiple of the coarse stride (pad_size_divisor of the data '
        'preprocessor)',
    )
    return pixel_unshuffle(features, stride)


def decode_yolov2(raw: Tensor, priors: Tensor, stride: Tensor | float) -> Tensor:
    """Compute the corners of predicted boxes, px; the module's docstring has the formula.

    Args:
        raw: (..., P, 4), the numbers t_x, t_y, t_w, t_h; half precision is computed in float32. A
            side above exp(10) anchors grows as a straight line, so that it stays finite.
        priors: (P, 4) corners of the anchors, centred in their cells, px.
        stride: side of a cell, px: a number, or (P, 1).

    Returns:
        Tensor: (..., P, 4) corners, px.

    >>> decode_yolov2(torch.zeros(1, 4), torch.tensor([[4., 8., 12., 8.]]), 16.)
    tensor([[ 4.,  8., 12.,  8.]])
    """
    raw, priors = promote_half(raw, priors)
    center = box_centers(priors) + (raw[..., :2].sigmoid() - 0.5) * stride
    sides = priors[..., 2:] - priors[..., :2]
    half = sides * bounded_log_side(raw[..., 2:]).exp() / 2
    return torch.cat([center - half, center + half], -1)


def encode_yolov2(boxes: Tensor, priors: Tensor, stride: Tensor | float) -> Tensor:
    """Compute what priors learn for boxes: the centre in the cell, and logarithms of the sides.

    Args:
        boxes: (..., 4) corners, px; half precision is computed in float32.
        priors: (..., 4) corners of the anchors, centred in their cells, px.
        stride: side of a cell, px: a number, or (..., 1).

    Returns:
        Tensor: (..., 4), the sigmoids of t_x and t_y, in [0, 1], then t_w and t_h. A centre
        outside of the cell gives the nearest point of the cell. A side counts as at least 1e-6
        anchors.

    >>> encode_yolov2(torch.tensor([4., 4., 12., 8.]), torch.tensor([4., 4., 12., 12.]), 16.)
    tensor([ 0.5000,  0.3750,  0.0000, -0.6931])
    """
    boxes, priors = promote_half(boxes, priors)
    place = (box_centers(boxes) - box_centers(priors)) / stride + 0.5
    ratio = (boxes[..., 2:] - boxes[..., :2]) / (priors[..., 2:] - priors[..., :2])
    return torch.cat([place.clamp(0, 1), ratio.clamp(min=LEAST_STRETCH).log()], -1)


def yolov2_loss(
    pred: Tensor,
    priors: Tensor,
    stride: float,
    gt_index: Tensor,
    gt_boxes: Tensor,
    gt_labels: Tensor,
    scales: YOLOV2Scales | None = None,
) -> YOLOV2Losses:
    r"""Compute the terms of YOLOv2's loss, summed over the priors of each image.

    .. math::
        L = \frac{1}{2} \sum_{p \in P} \left[ s_c \sum_{k=1}^{4} (z_k - \hat z_k)^2
        + s_o (o - u)^2 \right] + \frac{s_n}{2} \sum_{p \in N} o^2
        - s_k \sum_{p \in P} \ln q_l
        + \frac{s_p}{2} \sum_{p \notin P} \sum_{k=1}^{4} (z_k - a_k)^2

    with :math:`P` the priors that have a box and :math:`N` the background, by ``gt_index``;
    :math:`z = (\sigma(t_x), \sigma(t_y), t_w, t_h)` the prediction, :math:`\hat z` the target
    (`encode_yolov2`) and :math:`a = (1/2, 1/2, 0, 0)` the anchor itself; :math:`o = \sigma(t_o)`,
    :math:`u` the IoU of the predicted box with its ground truth, without gradient; :math:`q` the
    softmax of the logits and :math:`l` the label. The weights :math:`s_c, s_o, s_n, s_k, s_p` are
    ``coord``, ``object``, ``no_object``, ``classes`` and ``prior`` of ``scales``. The halves make
    the gradients those of the authors' code. The paper gives no formula; it describes the last
    term nowhere, and the code has it for the first 12,800 samples.

    Args:
        pred: (B, P, 5 + C), the numbers t_x, t_y, t_w, t_h, t_o and C logits; half precision is
            computed in float32.
        priors: (P, 4) corners of the anchors, centred in their cells, px.
        stride: side of a cell, px.
        gt_index: (B, P) int64, ground truth of each prior, -1 for background, -2 for ignored.
        gt_boxes: (B, G, 4) corners, px.
        gt_labels: (B, G) in [0, C).
        scales: weights; None for those of the authors.

    Returns:
        YOLOV2Losses: weighted terms (B,). Their sum is the loss of an image.

    Raises:
        ValueError: if a weight is below 0.

    >>> pred, prior = torch.zeros(1, 1, 7), torch.tensor([[0., 0., 8., 8.]])
    >>> box, label = torch.tensor([[[0., 0., 8., 4.]]]), torch.tensor([[1]])
    >>> index = torch.zeros(1, 1, dtype=torch.long)
    >>> losses = yolov2_loss(pred, prior, 8., index, box, label)
    >>> [round(float(term), 4) for term in losses]
    [0.0312, 0.2402, 0.0, 0.0, 0.6931, 0.0]

    The centre lies at a quarter of the cell's height: (1/2 - 1/4)^2 / 2. The box is half as high as
    the anchor: ln(2)^2 / 2. The IoU is 1/2, as is the sigmoid of 0.

    References:
        Redmon and Farhadi, YOLO9000: Better, Faster, Stronger, 2017, section 2; Darknet,
        https://github.com/pjreddie/darknet, src/region_layer.c.
    """
    scales = scales or YOLOV2Scales()
    for name, scale in scales._asdict().items():
        check_number(f'scales.{name}', scale, least=0, finite=True)
    pred, priors, gt_boxes = promote_half(pred, priors, gt_boxes)
    positive = gt_index >= 0
    boxes = _of_priors(gt_boxes, gt_index)
    labels = _of_priors(gt_labels[..., None], gt_index)
    raw, objectness, logits = pred[..., :4], pred[..., 4].sigmoid(), pred[..., 5:]
    with torch.no_grad():
        overlap = box_iou(decode_yolov2(raw, priors, stride), boxes)
        target = encode_yolov2(boxes, priors, stride)
    own = torch.cat([raw[..., :2].sigmoid(), raw[..., 2:]], -1)
    errors = (own - target).square().where(positive[..., None], 0).sum(1) / 2
    to_anchor = (own - own.new_tensor([0.5, 0.5, 0.0, 0.0])).square()
    of_object = (objectness - overlap).square().where(positive, 0)
    of_background = objectness.square().where(gt_index == BACKGROUND, 0)
    cost = -logits.log_softmax(-1).gather(-1, labels)[..., 0]
    return YOLOV2Losses(
        center=scales.coord * errors[:, :2].sum(1),
        size=scales.coord * errors[:, 2:].sum(1),
        object=scales.object / 2 * of_object.sum(1),
        no_object=scales.no_object / 2 * of_background.sum(1),
        classes=scales.classes * cost.where(positive, 0).sum(1),
        prior=scales.prior / 2 * to_anchor.where(~positive[..., None], 0).sum((1, 2)),
    )


def _of_priors(rows: Tensor, gt_index: Tensor) -> Tensor:
    """Return the rows (B, P, D) of the ground truth (B, G, D) of each prior, 0 for none."""
    table = torch.cat([rows, rows.new_zeros(rows.shape[0], 1, rows.shape[2])], 1)
    index = gt_index.where(gt_index >= 0, rows.shape[1])
    return table.gather(1, index[..., None].expand(-1, -1, rows.shape[2]))
