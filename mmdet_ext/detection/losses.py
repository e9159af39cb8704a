"""Losses that mmdet's heads recognise by their class."""

from __future__ import annotations

from mmdet.models.losses import QualityFocalLoss as StockQualityFocalLoss

from mmdet_ext.losses.quality import QualityFocalLoss as PlainQualityFocalLoss
from mmdet_ext.registry import MODELS


# mmdet's DETR heads give scores to instances of mmdet's class, and plain labels to other losses.
# Without mmdet the plain class stays registered.
@MODELS.register_module(force=True)
class QualityFocalLoss(PlainQualityFocalLoss, StockQualityFocalLoss):  # type: ignore[misc]
    """Quality focal loss, of one score for class and overlap, with ignored labels.

    It is :class:`mmdet_ext.losses.quality.QualityFocalLoss`, with its options, values and errors,
    and also a subclass of mmdet's QualityFocalLoss.
    """
