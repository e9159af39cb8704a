"""Online hard example mining over pixels, around another loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmdet_ext.functional.classification.labels import (
    check_class_shapes,
    is_label_map,
    without_weightless,
)
from mmdet_ext.functional.classification.pixel_mining import (
    check_pixel_mining,
    hard_pixel_mask,
    label_log_probability,
)
from mmdet_ext.functional.numerics.reduction import Reduction, weighted_reduce
from mmdet_ext.losses.base import Elements
from mmdet_ext.losses.labels import LabelLoss
from mmdet_ext.registry import MODELS


@MODELS.register_module()
class OHEMPixelLoss(LabelLoss):
    """Loss of labels over the hard pixels only, of the images of a call together.

    It does what MMSegmentation's OHEMPixelSampler does for a head, as a loss, which may stand
    beside others in one head. Kept are the pixels whose label has a probability below ``thresh``,
    and in any case the hardest ``min_kept`` times the number of images. Rule and ties:
    :func:`mmdet_ext.functional.classification.pixel_mining.hard_pixel_mask`. Pixels that are
    ignored or have the weight 0 are never kept; with none left the loss is a zero with a graph.

    A mean is divided by the head's avg_factor, or else by the number of pixels that are kept (at
    least 1), as in MMSegmentation's OhemCrossEntropy. A head with the sampler divides by all.
    Rows (N, C) with labels (N,) are mined as the pixels of one image.

    Args:
        loss: config of a loss of labels that returns its elements for reduction 'none'; None for
            CrossEntropyLoss. Its own ``reduction`` is not used, its ``loss_weight`` is.
        thresh: probability in [0, 1] of its label below which a pixel is kept; with sigmoid that of
            the column of the label. None: only the pixels of highest loss are kept.
        min_kept: least number of pixels that are kept for each image.
        reduction: 'none', 'mean' or 'sum'.
        loss_weight: factor on the result.
        loss_name: key of the loss in what a decode head returns, which must contain 'loss'. None:
            'loss_ohem_pixel'.

    Raises:
        ValueError: for an option out of its range, another ``reduction``, or a ``loss_name``
            without 'loss'.
    """

    def __init__(
        self,
        loss: dict[str, Any] | None = None,
        thresh: float | None = 0.7,
        min_kept: int = 100_000,
        reduction: Reduction = 'mean',
        loss_weight: float = 1.0,
        loss_name: str | None = None,
    ) -> None:
        super().__init__(reduction, loss_weight, loss_name)
        check_pixel_mining(thresh, min_kept)
        self.thresh = thresh
        self.min_kept = min_kept
        self.loss: nn.Module = MODELS.build(loss or {'type': 'mmdet_ext.CrossEntropyLoss'})
        self.use_sigmoid = bool(getattr(self.loss, 'use_sigmoid', False))
        self.ignore_index = getattr(self.loss, 'ignore_index', None)

    def call_elements(
        self,
        pred: Tensor,
        target: Any,
        weight: Tensor | None,
        reduction: Reduction,
        ignore_index: int | None = None,
        **own: Any,
    ) -> Elements:
        """Compute the weighted loss of the pixels that are kept."""
        label = self.ignoring(target, self.ignore_index if ignore_index is None else ignore_index)
        return self.elements(pred, label, weight, reduction, **own)

    def elements(
        self, pred: Tensor, target: Tensor, weight: Tensor | None, reduction: Reduction
    ) -> Elements:
        """Compute the weighted loss of the pixels that are kept, and count these."""
        check_class_shapes(pred, target, dense=False)
        target = without_weightless(target, weight)
        each = self._wrapped(pred, target)
        if weight is not None:
            # Weights of pixels, beside the binary columns of a map.
            wide = weight.dim() == target.dim() > 1 and each.dim() > target.dim()
            each = weighted_reduce(each, weight.unsqueeze(1) if wide else weight, reduction='none')
        summed = each.sum(1) if each.dim() > target.dim() else each
        kept = self._kept(pred, target, target >= 0, summed)
        loss = summed if reduction != 'none' else each
        beside = kept.unsqueeze(1) if loss.dim() > kept.dim() else kept
        loss = torch.where(beside, loss, loss.new_zeros(()))
        return Elements(loss, None, kept.sum().clamp(min=1))

    def elementwise(self, pred: Tensor, target: Tensor) -> Tensor:
        """Compute the wrapped loss, with 0 for pixels that are not kept."""
        return self.elements(pred, target, None, 'none').loss

    def _wrapped(self, pred: Tensor, label: Tensor) -> Tensor:
        """Return the wrapped loss of each pixel, or of each column of a pixel."""
        # Ours ignore negative labels anyhow; the losses of hosts ignore the one that is named.
        each: Tensor = self.loss(pred, label, reduction_override='none', ignore_index=-1)
        if label.shape not in (each.shape, each.shape[:1] + each.shape[2:]):
            raise ValueError(
                f'loss: {type(self.loss).__name__} gave a loss of shape {tuple(each.shape)} for '
                f'labels {tuple(label.shape)}: only a loss that gives one value or row per pixel '
                "for reduction_override='none' can be mined"
            )
        return each

    def _kept(self, pred: Tensor, label: Tensor, valid: Tensor, loss: Tensor) -> Tensor:
        """Mark the pixels that are kept."""
        columns = self.columns(pred, label) if is_label_map(pred, label) else label
        if self.thresh is None:
            log_probability, hardness = loss.detach(), loss.detach()
        else:
            log_probability = label_log_probability(pred, columns, self.use_sigmoid)
            hardness = None
        images = len(label) if label.dim() > 1 else 1
        least = self.min_kept * max(1, images)
        return hard_pixel_mask(log_probability, valid, self.thresh, least, hardness)
