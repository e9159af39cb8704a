"""Loss of the normalised Wasserstein distance of aligned boxes."""

from __future__ import annotations

import torch
from torch import Tensor

from mmdet_ext.functional.boxes.corner_losses import nwd_loss
from mmdet_ext.functional.numerics.reduction import Reduction
from mmdet_ext.losses.base import ElementwiseLoss
from mmdet_ext.registry import MODELS


@MODELS.register_module()
class NWDLoss(ElementwiseLoss):
    """Normalised Wasserstein distance loss for tiny objects, whose boxes need not overlap.

    Without an overlap term it has no ``inner_ratio``; a ``power`` would only change the constant.
    Formula and edge cases:
    :func:`mmdet_ext.functional.boxes.corner_losses.nwd_loss`.

    Args:
        constant: px, above 0; about the size of the objects.
        reduction: 'none', 'mean' or 'sum'.
        loss_weight: factor on the result.

    Raises:
        ValueError: if ``constant`` is not above 0, or ``reduction`` is none of the three.
    """

    def __init__(
        self, constant: float = 12.8, reduction: Reduction = 'mean', loss_weight: float = 1.0
    ) -> None:
        super().__init__(reduction=reduction, loss_weight=loss_weight)
        self.constant = constant
        no_boxes = torch.empty(0, 4)
        self.elementwise(no_boxes, no_boxes)  # checks the option

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """Compute the NWD loss of aligned boxes (N, 4), shape (N,)."""
        return nwd_loss(pred, target, self.constant)
