"""Overlap losses of aligned boxes."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from mmdet_ext.functional.boxes.checks import check_overlap_options
from mmdet_ext.functional.boxes.corner_losses import mpdiou_loss
from mmdet_ext.functional.boxes.iou_losses import (
    IoUMode,
    ciou_loss,
    diou_loss,
    giou_loss,
    iou_loss,
)
from mmdet_ext.functional.boxes.shape_losses import efficient_iou_loss, shape_iou_loss, siou_loss
from mmdet_ext.functional.boxes.wise_iou import WiseVersion, wise_iou_loss
from mmdet_ext.functional.numerics.reduction import Reduction
from mmdet_ext.losses.base import Elements, ElementwiseLoss
from mmdet_ext.registry import MODELS

#: Boxes with which a loss is computed when it is built, to check its options.
_NO_BOXES = torch.empty(0, 4)


class OverlapLoss(ElementwiseLoss):
    """Base class of the losses of aligned boxes with an overlap term.

    Args:
        eps: smallest area and squared length to divide by, px**2.
        reduction: 'none', 'mean' or 'sum'.
        loss_weight: factor on the result.
        power: exponent of the IoU and of each penalty (alpha-IoU); above 0.
        inner_ratio: factor on both boxes' sides, about their own centres, for the overlap term
            alone (Inner-IoU); above 0.

    Raises:
        ValueError: if ``eps``, ``power`` or ``inner_ratio`` is not above 0, or ``reduction`` is
            none of the three.
    """

    def __init__(
        self,
        eps: float = 1e-6,
        reduction: Reduction = 'mean',
        loss_weight: float = 1.0,
        power: float = 1.0,
        inner_ratio: float = 1.0,
    ) -> None:
        super().__init__(reduction=reduction, loss_weight=loss_weight)
        check_overlap_options(eps, power, inner_ratio)
        self.eps = eps
        self.power = power
        self.inner_ratio = inner_ratio


@MODELS.register_module()
class IoULoss(OverlapLoss):
    """IoU loss, linear, squared or logarithmic, that is 0 for equal boxes of any size.

    Formula and edge cases: :func:`mmdet_ext.functional.boxes.iou_losses.iou_loss`.

    Args:
        linear: the same as ``mode='linear'``; mmdet's older option, which warns.
        eps: smallest area to divide by, px**2, and smallest IoU in 'log'.
        reduction: 'none', 'mean' or 'sum'.
        loss_weight: factor on the result.
        mode: 'linear', 'square' or 'log'.
        power: exponent of the IoU, above 0.
        inner_ratio: factor on both boxes' sides, above 0.

    Raises:
        ValueError: for another ``mode``, and as `OverlapLoss`.
    """

    def __init__(
        self,
        linear: bool = False,
        eps: float = 1e-6,
        reduction: Reduction = 'mean',
        loss_weight: float = 1.0,
        mode: IoUMode = 'log',
        power: float = 1.0,
        inner_ratio: float = 1.0,
    ) -> None:
        super().__init__(eps, reduction, loss_weight, power, inner_ratio)
        if linear:
            warnings.warn(
                "IoULoss: linear=True is mmdet's older option. Use mode='linear'",
                DeprecationWarning,
                stacklevel=2,
            )
            mode = 'linear'
        self.mode: IoUMode = mode
        self.elementwise(_NO_BOXES, _NO_BOXES)

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """Compute the IoU loss of aligned boxes (N, 4), shape (N,)."""
        return iou_loss(pred, target, self.mode, self.eps, self.power, self.inner_ratio)


@MODELS.register_module()
class GIoULoss(OverlapLoss):
    """Generalised-IoU loss, which adds the empty part of the smallest box around both.

    It agrees with mmdet's, except in half precision, where mmdet's areas overflow, and for boxes
    without area. Formula and
    edges: :func:`mmdet_ext.functional.boxes.iou_losses.giou_loss`. Options and errors are those of
    `OverlapLoss`.
    """

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """Compute the GIoU loss of aligned boxes (N, 4), shape (N,)."""
        return giou_loss(pred, target, self.eps, self.power, self.inner_ratio)


@MODELS.register_module()
class DIoULoss(OverlapLoss):
    """Distance-IoU loss, which adds the distance of the centres.

    It agrees with mmdet's, except in half precision, where mmdet's areas overflow, and for boxes
    without area. Formula and
    edges: :func:`mmdet_ext.functional.boxes.iou_losses.diou_loss`. Options and errors are those of
    `OverlapLoss`.
    """

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """Compute the DIoU loss of aligned boxes (N, 4), shape (N,)."""
        return diou_loss(pred, target, self.eps, self.power, self.inner_ratio)


@MODELS.register_module()
class CIoULoss(OverlapLoss):
    """Complete-IoU loss that is 0, not NaN, where prediction equals target.

    mmdet's ``CIoULoss`` gives NaN in loss and gradient where prediction equals target, and in
    float16 for boxes of a few hundred pixels. Here the results are 0 and the float32 value.
    Elsewhere both agree. Formula and edge cases:
    :func:`mmdet_ext.functional.boxes.iou_losses.ciou_loss`.

    Args:
        eps: smallest squared length to divide by, px**2.
        reduction: 'none', 'mean' or 'sum'.
        loss_weight: factor on the result.
        power: exponent of the IoU and of each penalty, above 0.
        inner_ratio: factor on both boxes' sides for the overlap term, above 0.
        aspect_thr: IoU above which the aspect ratio counts, in [0, 1]; None where it counts
            always, as in YOLOv5.

    Raises:
        ValueError: for an ``aspect_thr`` outside of [0, 1], and as `OverlapLoss`.
    """

    def __init__(
        self,
        eps: float = 1e-6,
        reduction: Reduction = 'mean',
        loss_weight: float = 1.0,
        power: float = 1.0,
        inner_ratio: float = 1.0,
        aspect_thr: float | None = 0.5,
    ) -> None:
        super().__init__(eps, reduction, loss_weight, power, inner_ratio)
        self.aspect_thr = aspect_thr
        self.elementwise(_NO_BOXES, _NO_BOXES)

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """Compute the CIoU loss of aligned boxes (N, 4), shape (N,)."""
        return ciou_loss(pred, target, self.eps, self.power, self.inner_ratio, self.aspect_thr)


@MODELS.register_module()
class SIoULoss(OverlapLoss):
    """SCYLLA-IoU loss, which adds the distance by its direction and the difference in shape.

    With mmdet's default ``neg_gamma=False`` distance lowers the loss, and boxes far apart have no
    loss. The paper's formula is ``neg_gamma=True``. Formula and edge cases:
    :func:`mmdet_ext.functional.boxes.shape_losses.siou_loss`.

    Args:
        eps: smallest area and squared length to divide by, px**2.
        reduction: 'none', 'mean' or 'sum'.
        loss_weight: factor on the result.
        neg_gamma: True for the paper's formula, False for mmdet's variant.
        power: exponent of the IoU and of the penalty, above 0. Values other than 1 need the
            paper's formula.
        inner_ratio: factor on both boxes' sides for the overlap term, above 0.

    Raises:
        ValueError: for a ``power`` other than 1 without ``neg_gamma``, and as `OverlapLoss`.
    """

    def __init__(
        self,
        eps: float = 1e-6,
        reduction: Reduction = 'mean',
        loss_weight: float = 1.0,
        neg_gamma: bool = False,
        power: float = 1.0,
        inner_ratio: float = 1.0,
    ) -> None:
        super().__init__(eps, reduction, loss_weight, power, inner_ratio)
        self.neg_gamma = neg_gamma
        self.elementwise(_NO_BOXES, _NO_BOXES)

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """Compute the SIoU loss of aligned boxes (N, 4), shape (N,)."""
        return siou_loss(pred, target, self.eps, self.neg_gamma, self.power, self.inner_ratio)


@MODELS.register_module()
class EfficientIoULoss(OverlapLoss):
    """Efficient-IoU loss, plain or focal, which adds the gaps of centres, widths and heights.

    This loss is mostly called EIoU. mmdet's ``EIoULoss`` is another loss, Extended-IoU.
    Formula and edge cases: :func:`mmdet_ext.functional.boxes.shape_losses.efficient_iou_loss`.

    Args:
        focal_gamma: None, or the exponent of the factor IoU**gamma; 0.5 in the paper.
        eps: smallest area and squared length to divide by, px**2.
        reduction: 'none', 'mean' or 'sum'.
        loss_weight: factor on the result.
        power: exponent of the IoU and of each penalty, above 0.
        inner_ratio: factor on both boxes' sides for the overlap term, above 0.

    Raises:
        ValueError: if ``focal_gamma`` is not above 0, and as `OverlapLoss`.
    """

    def __init__(
        self,
        focal_gamma: float | None = None,
        eps: float = 1e-6,
        reduction: Reduction = 'mean',
        loss_weight: float = 1.0,
        power: float = 1.0,
        inner_ratio: float = 1.0,
    ) -> None:
        super().__init__(eps, reduction, loss_weight, power, inner_ratio)
        self.focal_gamma = focal_gamma
        self.elementwise(_NO_BOXES, _NO_BOXES)

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """Compute the EIoU loss of aligned boxes (N, 4), shape (N,)."""
        return efficient_iou_loss(
            pred, target, self.focal_gamma, self.eps, self.power, self.inner_ratio
        )


@MODELS.register_module()
class ShapeIoULoss(OverlapLoss):
    """Shape-IoU loss, which weights distance and shape by the shape of the target.

    Formula and edge cases: :func:`mmdet_ext.functional.boxes.shape_losses.shape_iou_loss`.

    Args:
        scale: exponent of the target's sides in the weights of the axes, at least 0; 0 weights
            both alike. The paper chooses it by the size of the objects in the data set.
        eps: smallest area and squared length to divide by, px**2.
        reduction: 'none', 'mean' or 'sum'.
        loss_weight: factor on the result.
        power: exponent of the IoU and of each penalty, above 0.
        inner_ratio: factor on both boxes' sides for the overlap term, above 0.

    Raises:
        ValueError: if ``scale`` is below 0, and as `OverlapLoss`.
    """

    def __init__(
        self,
        scale: float = 0.0,
        eps: float = 1e-6,
        reduction: Reduction = 'mean',
        loss_weight: float = 1.0,
        power: float = 1.0,
        inner_ratio: float = 1.0,
    ) -> None:
        super().__init__(eps, reduction, loss_weight, power, inner_ratio)
        self.scale = scale
        self.elementwise(_NO_BOXES, _NO_BOXES)

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """Compute the Shape-IoU loss of aligned boxes (N, 4), shape (N,)."""
        return shape_iou_loss(pred, target, self.scale, self.eps, self.power, self.inner_ratio)


@MODELS.register_module()
class MPDIoULoss(OverlapLoss):
    """MPDIoU loss, which adds the distances of the two corners.

    Formula and edge cases: :func:`mmdet_ext.functional.boxes.corner_losses.mpdiou_loss`.

    Args:
        image_size: width and height of the image, px, as in the paper. None takes the box around
            both boxes instead, because a head does not pass the image's size.
        eps: smallest area and squared length to divide by, px**2.
        reduction: 'none', 'mean' or 'sum'.
        loss_weight: factor on the result.
        power: exponent of the IoU and of each penalty, above 0.
        inner_ratio: factor on both boxes' sides for the overlap term, above 0.

    Raises:
        ValueError: if ``image_size`` is not two numbers above 0, and as `OverlapLoss`.
    """

    def __init__(
        self,
        image_size: tuple[float, float] | None = None,
        eps: float = 1e-6,
        reduction: Reduction = 'mean',
        loss_weight: float = 1.0,
        power: float = 1.0,
        inner_ratio: float = 1.0,
    ) -> None:
        super().__init__(eps, reduction, loss_weight, power, inner_ratio)
        self.image_size = image_size
        self.elementwise(_NO_BOXES, _NO_BOXES)

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """Compute the MPDIoU loss of aligned boxes (N, 4), shape (N,)."""
        return mpdiou_loss(pred, target, self.image_size, self.eps, self.power, self.inner_ratio)


@MODELS.register_module()
class WiseIoULoss(OverlapLoss):
    """Wise-IoU loss, v1 to v3, which weights the IoU loss by distance and outlier degree.

    v2 and v3 compare a pair with the mean IoU loss of the call. The paper keeps a running mean
    instead; this loss has no state. Boxes of weight 0 do not count in the mean. Formula and edge
    cases: :func:`mmdet_ext.functional.boxes.wise_iou.wise_iou_loss`.

    Args:
        version: 'v1', 'v2' or 'v3'.
        gamma: exponent of v2, above 0.
        alpha: base of v3, above 1.
        delta: outlier degree at which v3's factor is 1, above 0.
        eps: smallest area and squared length to divide by, px**2.
        reduction: 'none', 'mean' or 'sum'.
        loss_weight: factor on the result.
        power: exponent of the IoU and of the distance, above 0.
        inner_ratio: factor on both boxes' sides for the overlap term, above 0.

    Raises:
        ValueError: for another ``version``, an option out of its range, and as `OverlapLoss`.
    """

    def __init__(
        self,
        version: WiseVersion = 'v3',
        gamma: float = 0.5,
        alpha: float = 1.9,
        delta: float = 3.0,
        eps: float = 1e-6,
        reduction: Reduction = 'mean',
        loss_weight: float = 1.0,
        power: float = 1.0,
        inner_ratio: float = 1.0,
    ) -> None:
        super().__init__(eps, reduction, loss_weight, power, inner_ratio)
        self.version: WiseVersion = version
        self.gamma = gamma
        self.alpha = alpha
        self.delta = delta
        self.elementwise(_NO_BOXES, _NO_BOXES)

    def elements(
        self, pred: Tensor, target: Tensor, weight: Tensor | None, reduction: Reduction
    ) -> Elements:
        """Compute the loss, with the mean over the boxes of a weight above 0."""
        counted = None
        # A weight that does not fit is reported where it is applied.
        if weight is not None and weight.shape[: pred.dim() - 1] == pred.shape[:-1]:
            # Heads pass all anchors; those without a box have the weight 0.
            counted = (weight > 0).reshape(*pred.shape[:-1], -1).any(-1)
        return Elements(self.elementwise(pred, target, counted), weight)

    def elementwise(
        self, pred: Tensor, target: Tensor, counted_mask: Tensor | None = None
    ) -> Tensor:
        """Compute the Wise-IoU loss of aligned boxes (N, 4), shape (N,)."""
        return wise_iou_loss(
            pred,
            target,
            self.version,
            self.gamma,
            self.alpha,
            self.delta,
            counted_mask=counted_mask,
            eps=self.eps,
            power=self.power,
            inner_ratio=self.inner_ratio,
        )
