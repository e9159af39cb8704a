"""Losses that heads of mmdet know by their class."""

from __future__ import annotations

from mmdet.models.losses import QualityFocalLoss as StockQualityFocalLoss

from mmdet_ext.losses.quality import QualityFocalLoss as PlainQualityFocalLoss
from mmdet_ext.registry import MODELS


# mmdet's DETR heads give scores to instances of stock's class, and plain labels to other losses.
# The plain one stays registered where mmdet is absent.
@MODELS.register_module(force=True)
class QualityFocalLoss(PlainQualityFocalLoss, StockQualityFocalLoss):  # type: ignore[misc]
    """Quality focal loss, of one score for class and overlap, with ignored labels.

    :class:`mmdet_ext.losses.quality.QualityFocalLoss` under stock's class beside it: options,
    values and errors are the former's.
    """
