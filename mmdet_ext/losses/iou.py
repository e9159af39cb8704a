"""Box regression losses built on the overlap of prediction and target."""

from __future__ import annotations

from torch import Tensor

from mmdet_ext.functional.box_losses import ciou_loss
from mmdet_ext.functional.reduction import Reduction
from mmdet_ext.losses.base import ElementwiseLoss
from mmdet_ext.registry import MODELS


@MODELS.register_module()
class CIoULoss(ElementwiseLoss):
    """Complete-IoU loss that is 0, not NaN, where prediction equals target.

    Stock's ``CIoULoss`` gives NaN in loss and gradient where prediction equals target, and in
    float16 for boxes of a few hundred pixels; this one gives 0 and the float32 value. Elsewhere
    both agree. Formula and edges: :func:`mmdet_ext.functional.box_losses.ciou_loss`.

    Args:
        eps: floor of the areas and squared lengths divided by, px**2.
        reduction: 'none', 'mean' or 'sum'.
        loss_weight: factor on the result.

    Raises:
        ValueError: if ``eps`` is not above 0, or ``reduction`` is none of the three.
    """

    def __init__(
        self, eps: float = 1e-6, reduction: Reduction = 'mean', loss_weight: float = 1.0
    ) -> None:
        super().__init__(reduction=reduction, loss_weight=loss_weight)
        if eps <= 0:
            raise ValueError(f'eps must be above 0, got {eps}: it keeps quotients finite')
        self.eps = eps

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """CIoU loss of aligned boxes (N, 4), shape (N,)."""
        return ciou_loss(pred, target, eps=self.eps)
