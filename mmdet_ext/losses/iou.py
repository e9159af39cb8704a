"""Box regression losses built on the overlap of prediction and target."""

from __future__ import annotations

import warnings

from torch import Tensor

from mmdet_ext.functional.boxes import corner_losses, iou_losses, shape_losses
from mmdet_ext.functional.boxes.checks import check_overlap_options
from mmdet_ext.functional.boxes.iou_losses import IoUMode, WiseVersion
from mmdet_ext.functional.numerics.checks import check_above, check_one_of
from mmdet_ext.functional.numerics.reduction import Reduction
from mmdet_ext.losses.base import Elements, ElementwiseLoss
from mmdet_ext.registry import MODELS


class OverlapLoss(ElementwiseLoss):
    """A loss of aligned boxes with an overlap term, and the options of that term.

    Args:
        eps: floor of the areas and squared lengths divided by, px**2.
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
    """IoU loss, linear, square or -log, with a gradient that stays finite and exactly 0 at 0.

    Formula and edges: :func:`mmdet_ext.functional.boxes.iou_losses.iou_loss`.

    Args:
        linear: as ``mode='linear'``; stock's older option, which warns.
        eps: floor of the areas divided by, px**2, and of the IoU in -log.
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
                "IoULoss: linear=True is stock's older option. Use mode='linear'",
                DeprecationWarning,
                stacklevel=2,
            )
            mode = 'linear'
        check_one_of('mode', mode, IoUMode)
        self.mode: IoUMode = mode

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """IoU loss of aligned boxes (N, 4), shape (N,)."""
        return iou_losses.iou_loss(pred, target, self.mode, self.eps, self.power, self.inner_ratio)


@MODELS.register_module()
class GIoULoss(OverlapLoss):
    """Generalised-IoU loss: also the share of the box around both that neither fills.

    Stock's agrees but in half precision, where its areas overflow, and without area. Formula and
    edges: :func:`mmdet_ext.functional.boxes.iou_losses.giou_loss`. Options and errors are those of
    `OverlapLoss`.
    """

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """GIoU loss of aligned boxes (N, 4), shape (N,)."""
        return iou_losses.giou_loss(pred, target, self.eps, self.power, self.inner_ratio)


@MODELS.register_module()
class DIoULoss(OverlapLoss):
    """Distance-IoU loss: also how far the centres are apart.

    Stock's agrees but in half precision, where its areas overflow, and without area. Formula and
    edges: :func:`mmdet_ext.functional.boxes.iou_losses.diou_loss`. Options and errors are those of
    `OverlapLoss`.
    """

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """DIoU loss of aligned boxes (N, 4), shape (N,)."""
        return iou_losses.diou_loss(pred, target, self.eps, self.power, self.inner_ratio)


@MODELS.register_module()
class CIoULoss(OverlapLoss):
    """Complete-IoU loss that is 0, not NaN, where prediction equals target.

    Stock's ``CIoULoss`` gives NaN in loss and gradient where prediction equals target, and in
    float16 for boxes of a few hundred pixels; this one gives 0 and the float32 value. Elsewhere
    both agree. Formula and edges: :func:`mmdet_ext.functional.boxes.iou_losses.ciou_loss`. Options and
    errors are those of `OverlapLoss`.
    """

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """CIoU loss of aligned boxes (N, 4), shape (N,)."""
        return iou_losses.ciou_loss(pred, target, self.eps, self.power, self.inner_ratio)


@MODELS.register_module()
class SIoULoss(OverlapLoss):
    """SCYLLA-IoU loss: also distance weighed by direction, and the difference in shape.

    With stock's default ``neg_gamma=False`` distance lowers the loss, and boxes far apart cost
    nothing; the paper's formula is ``neg_gamma=True``. Formula and edges:
    :func:`mmdet_ext.functional.boxes.shape_losses.siou_loss`.

    Args:
        eps: floor of the areas and squared lengths divided by, px**2.
        reduction: 'none', 'mean' or 'sum'.
        loss_weight: factor on the result.
        neg_gamma: True for the paper's formula, False for stock's variant.
        power: exponent of the IoU and of the penalty, above 0; other than 1 for the paper's
            formula alone.
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
        shape_losses.check_siou_power(power, neg_gamma)
        self.neg_gamma = neg_gamma

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """SIoU loss of aligned boxes (N, 4), shape (N,)."""
        return shape_losses.siou_loss(
            pred, target, self.eps, self.neg_gamma, self.power, self.inner_ratio
        )


@MODELS.register_module()
class EfficientIoULoss(OverlapLoss):
    """Efficient-IoU loss, focal or not: also the gaps of centres, widths and heights.

    It is what is mostly called EIoU; stock's ``EIoULoss`` is another loss, Extended-IoU.
    Formula and edges: :func:`mmdet_ext.functional.boxes.shape_losses.efficient_iou_loss`.

    Args:
        focal_gamma: None, or the exponent of the factor IoU**gamma; 0.5 in the paper.
        eps: floor of the areas and squared lengths divided by, px**2.
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
        shape_losses.check_focal_gamma(focal_gamma)
        self.focal_gamma = focal_gamma

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """EIoU loss of aligned boxes (N, 4), shape (N,)."""
        return shape_losses.efficient_iou_loss(
            pred, target, self.focal_gamma, self.eps, self.power, self.inner_ratio
        )


@MODELS.register_module()
class ShapeIoULoss(OverlapLoss):
    """Shape-IoU loss: distance and shape weighed by the target's own shape.

    Formula and edges: :func:`mmdet_ext.functional.boxes.shape_losses.shape_iou_loss`.

    Args:
        scale: exponent of the target's sides in the weights of the axes, at least 0; 0 weighs
            both alike. The paper sets it by the size of a data set's objects.
        eps: floor of the areas and squared lengths divided by, px**2.
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
        shape_losses.check_scale(scale)
        self.scale = scale

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """Shape-IoU loss of aligned boxes (N, 4), shape (N,)."""
        return shape_losses.shape_iou_loss(
            pred, target, self.scale, self.eps, self.power, self.inner_ratio
        )


@MODELS.register_module()
class MPDIoULoss(OverlapLoss):
    """MPDIoU loss: also how far the two corners are apart.

    Formula and edges: :func:`mmdet_ext.functional.boxes.corner_losses.mpdiou_loss`.

    Args:
        image_size: width and height of the picture, px, as the paper has it; None takes the box
            around both instead, as a head does not pass the picture's size.
        eps: floor of the areas and squared lengths divided by, px**2.
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
        corner_losses.check_image_size(image_size)
        self.image_size = image_size

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """MPDIoU loss of aligned boxes (N, 4), shape (N,)."""
        return corner_losses.mpdiou_loss(
            pred, target, self.image_size, self.eps, self.power, self.inner_ratio
        )


@MODELS.register_module()
class WiseIoULoss(OverlapLoss):
    """Wise-IoU loss, v1 to v3: the IoU loss by distance, and by how far out a box lies.

    v2 and v3 set a box against the mean IoU loss of the call, where the paper keeps a running
    mean: this loss has no state. Boxes of weight 0 do not count in the mean. Formula and edges:
    :func:`mmdet_ext.functional.boxes.iou_losses.wise_iou_loss`.

    Args:
        version: 'v1', 'v2' or 'v3'.
        gamma: exponent of v2, above 0.
        alpha: base of v3, above 1.
        delta: outlier degree at which v3's factor is 1, above 0.
        eps: floor of the areas and squared lengths divided by, px**2.
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
        iou_losses.check_wise_options(version, gamma, alpha, delta)
        self.version: WiseVersion = version
        self.gamma = gamma
        self.alpha = alpha
        self.delta = delta

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
        """Wise-IoU loss of aligned boxes (N, 4), shape (N,)."""
        return iou_losses.wise_iou_loss(
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


@MODELS.register_module()
class NWDLoss(ElementwiseLoss):
    """Normalised Wasserstein distance loss, for tiny objects; boxes need not overlap.

    It has no overlap term, and a power would only change the constant: so it takes neither
    ``power`` nor ``inner_ratio``. Formula and edges:
    :func:`mmdet_ext.functional.boxes.corner_losses.nwd_loss`.

    Args:
        constant: px, above 0; of the order of the objects' size.
        reduction: 'none', 'mean' or 'sum'.
        loss_weight: factor on the result.

    Raises:
        ValueError: if ``constant`` is not above 0, or ``reduction`` is none of the three.
    """

    def __init__(
        self, constant: float = 12.8, reduction: Reduction = 'mean', loss_weight: float = 1.0
    ) -> None:
        super().__init__(reduction=reduction, loss_weight=loss_weight)
        check_above('constant', constant, 0, "take about the objects' size in pixels")
        self.constant = constant

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """NWD loss of aligned boxes (N, 4), shape (N,)."""
        return corner_losses.nwd_loss(pred, target, self.constant)
