"""Suppression of duplicate detections, per class and on any device: soft-NMS and DIoU-NMS.

Both select the best of the remaining boxes, lower or remove those that overlap it, and repeat.
Classes do not affect each other. Boxes are compared as they are: mmcv shifts the classes apart
instead, which rounds coordinates to 1/128 px at 80 classes and images of 1,333 px.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from mmdet_ext.functional.boxes._detections import Planes, check_detections, planes_iou
from mmdet_ext.functional.boxes._suppression_pairs import Rule
from mmdet_ext.functional.boxes._suppression_rounds import settle
from mmdet_ext.functional.numerics.checks import check_number, check_one_of
from mmdet_ext.functional.numerics.order import descending_order, places_of

__all__ = ['SoftNMSMethod', 'batched_diou_nms', 'batched_soft_nms']

#: Rule by which soft-NMS lowers scores.
SoftNMSMethod = Literal['linear', 'gaussian', 'naive']


def batched_soft_nms(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor | None,
    iou_threshold: float = 0.3,
    sigma: float = 0.5,
    min_score: float = 1e-3,
    method: SoftNMSMethod = 'linear',
    offset: int = 0,
) -> tuple[Tensor, Tensor]:
    r"""Lower the scores of boxes that overlap a better box of their class.

    The box :math:`M` of the best score is selected, and the score of each remaining box :math:`b`
    of its class becomes

    .. math::
        s \leftarrow \begin{cases}
            s \, (1 - IoU(M, b)) \;\text{if}\; IoU(M, b) \ge N_t & \text{linear} \\
            s \, e^{-IoU(M, b)^2 / \sigma} & \text{gaussian} \\
            0 \;\text{if}\; IoU(M, b) \ge N_t & \text{naive, the ordinary NMS}
        \end{cases}

    with :math:`s` the ``scores``, :math:`N_t` the ``iou_threshold``, :math:`\sigma` the ``sigma``.
    This repeats until no box remains. Boxes whose score falls below ``min_score`` are dropped.

    Args:
        boxes: (N, 4) corners, px, finite, not inverted; half precision is computed in float32.
        scores: (N,), finite; of equal scores the first box is selected first.
        labels: (N,) whole numbers; None if all boxes affect each other, whatever their class.
        iou_threshold: in [0, 1], above 0 for ``naive``; unused by ``gaussian``.
        sigma: above 0; used by ``gaussian`` alone.
        min_score: at least 0.
        method: ``linear``, ``gaussian`` or ``naive``.
        offset: 0, or 1 where x2 and y2 are the last pixels of a box: the width is then
            ``x2 - x1 + 1``.

    Returns:
        tuple[Tensor, Tensor]: boxes with their lowered scores (K, 5), best first, and their indices
        (K,). They have no gradient. Boxes without area overlap nothing.

    Raises:
        TypeError: if boxes, scores or labels are no tensors of numbers.
        ValueError: for other shapes, values that are not finite, inverted boxes and wrong options.

    >>> boxes = torch.tensor([[0., 0., 4., 4.], [0., 0., 4., 2.], [9., 9., 9., 9.]])
    >>> dets, keep = batched_soft_nms(boxes, torch.tensor([.8, .6, .5]), torch.tensor([0, 0, 1]))
    >>> dets[:, 4], keep
    (tensor([0.8000, 0.5000, 0.3000]), tensor([0, 2, 1]))

    The second box covers half of the first, which leaves half of its score. With a label of its
    own, or none, it keeps 0.6.

    The results are those of mmcv's ``soft_nms`` on each class, except where boxes have no area
    (mmcv gives NaN) and where the best score is below ``min_score`` (mmcv keeps that one box).

    References:
        Bodla et al., Soft-NMS: Improving Object Detection With One Line of Code, 2017, section 3:
        equations 1 (naive), 2 (linear) and 3 (Gaussian).
    """
    check_one_of('method', method, SoftNMSMethod)
    check_number('iou_threshold', iou_threshold, least=0, most=1)
    if method == 'naive':
        check_number('iou_threshold', iou_threshold, above=0, why='at 0 one box is left per class')
    check_number('sigma', sigma, above=0, finite=True)
    check_number('min_score', min_score, least=0, finite=True)
    check_one_of('offset', offset, (0, 1))
    boxes, scores = check_detections(boxes, scores, labels)

    def weigh(iou: Tensor) -> Tensor:
        if method == 'gaussian':
            # A tiny sigma is 0 in float32, and 0 / 0 is no overlap.
            return (iou.square() / -sigma).exp().nan_to_num_(1.0)
        return 1 - iou if method == 'linear' else torch.zeros_like(iou)

    rule = Rule(planes_iou, weigh, 0.0 if method == 'gaussian' else iou_threshold)
    # The borders of the last pixels, where boxes name these pixels.
    outer = boxes + boxes.new_tensor([0, 0, offset, offset]) if offset else boxes
    lowered = settle(outer, scores, labels, rule, min_score)
    kept = torch.minimum(scores, lowered) >= min_score  # a negative score rises
    return _ranked(boxes, lowered, places_of(kept))


def batched_diou_nms(
    boxes: Tensor, scores: Tensor, labels: Tensor | None, iou_threshold: float = 0.5
) -> tuple[Tensor, Tensor]:
    r"""Remove boxes that overlap a better box of their class whose centre is near.

    The box :math:`M` of the best score is selected, and every remaining box :math:`b` of its class
    is removed if

    .. math::
        IoU(M, b) - \frac{\rho^2}{c^2} \ge \varepsilon

    with :math:`\rho` the distance of their centres, :math:`c` the diagonal of the smallest box
    around both, :math:`\varepsilon` the ``iou_threshold``. This repeats until no box remains. Two
    objects of which one hides the other overlap as two detections of one object do, but their
    centres are further apart.

    Args:
        boxes: (N, 4) corners, px, finite, not inverted; half precision is computed in float32.
        scores: (N,), finite; of equal scores the first box is selected first.
        labels: (N,) whole numbers; None if all boxes affect each other, whatever their class.
        iou_threshold: above 0, at most 1.

    Returns:
        tuple[Tensor, Tensor]: the boxes that are left with their scores (K, 5), best first, and
        their indices (K,). They have no gradient. Boxes without area overlap nothing.

    Raises:
        TypeError: if boxes, scores or labels are no tensors of numbers.
        ValueError: for other shapes, values that are not finite, inverted boxes and wrong options.

    >>> boxes, scores = torch.tensor([[0., 0., 4., 4.], [0., 0., 4., 2.]]), torch.tensor([.9, .8])
    >>> [batched_diou_nms(boxes, scores, None, limit)[1].tolist() for limit in (0.46, 0.47)]
    [[0], [0, 1]]

    The IoU is 1/2, the centres are 1 px apart, and c**2 is 32: 1/2 - 1/32 is 0.469.

    References:
        Zheng et al., Distance-IoU Loss: Faster and Better Learning for Bounding Box Regression,
        2020, the section on non-maximum suppression using DIoU.
    """
    check_number('iou_threshold', iou_threshold, above=0, most=1)
    boxes, scores = check_detections(boxes, scores, labels)
    keep = descending_order(scores)

    rule = Rule(_planes_diou, torch.zeros_like, iou_threshold)
    # Ranks take the place of scores: what is removed falls to 0.
    ranks = torch.arange(keep.shape[0], 0, -1, dtype=boxes.dtype, device=keep.device)
    own = None if labels is None else labels[keep]
    left = settle(boxes[keep], ranks, own, rule, min_score=0.5)
    return _ranked(boxes, scores, keep[left > 0])


def _planes_diou(one: Planes, other: Planes) -> Tensor:
    """Compute the IoU minus the squared distance of centres over that of the farthest corners."""
    gap, outer = torch.zeros_like(one[0]), torch.zeros_like(one[0])
    for low, high in ((0, 2), (1, 3)):
        twice = one[low] + one[high] - other[low] - other[high]
        gap += twice.square()
        side = torch.maximum(one[high], other[high]) - torch.minimum(one[low], other[low])
        outer += side.square()
    tiny = torch.finfo(gap.dtype).tiny
    return planes_iou(one, other) - gap / 4 / outer.clamp(min=tiny)


def _ranked(boxes: Tensor, scores: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """Return the kept boxes with their scores (K, 5), best first, and their indices."""
    keep = keep.index_select(0, descending_order(scores.index_select(0, keep)))
    dets = boxes.new_empty(keep.shape[0], 5)
    dets[:, :4], dets[:, 4] = boxes.index_select(0, keep), scores.index_select(0, keep)
    return dets, keep
