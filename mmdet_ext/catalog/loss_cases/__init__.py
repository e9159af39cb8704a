"""Cases of the losses in the contract table, one module per family."""

from mmdet_ext.catalog.loss_cases.boxes import BOX_LOSSES, box_pairs
from mmdet_ext.catalog.loss_cases.classification import CLASSIFICATION_LOSSES
from mmdet_ext.catalog.loss_cases.inputs import Inputs, cast
from mmdet_ext.catalog.loss_cases.long_tail import LONG_TAIL_LOSSES
from mmdet_ext.catalog.loss_cases.mining import MINING_LOSSES
from mmdet_ext.catalog.loss_cases.quality import QUALITY_LOSSES
from mmdet_ext.catalog.loss_cases.region import REGION_LOSSES
from mmdet_ext.catalog.loss_cases.regression import REGRESSION_LOSSES

LOSSES = (
    *CLASSIFICATION_LOSSES,
    *QUALITY_LOSSES,
    *LONG_TAIL_LOSSES,
    *MINING_LOSSES,
    *REGION_LOSSES,
    *REGRESSION_LOSSES,
    *BOX_LOSSES,
)

__all__ = ['LOSSES', 'Inputs', 'box_pairs', 'cast']
