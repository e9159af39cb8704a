"""Boxes: their overlaps, and regression losses of aligned pairs."""

from mmdet_ext.functional.boxes import (
    checks,
    corner_losses,
    iou_losses,
    offset_losses,
    overlap,
    pair,
    shape_losses,
    suppression,
    suppression_fusion,
    wise_iou,
)
from mmdet_ext.functional.boxes.checks import *
from mmdet_ext.functional.boxes.corner_losses import *
from mmdet_ext.functional.boxes.iou_losses import *
from mmdet_ext.functional.boxes.offset_losses import *
from mmdet_ext.functional.boxes.overlap import *
from mmdet_ext.functional.boxes.pair import *
from mmdet_ext.functional.boxes.shape_losses import *
from mmdet_ext.functional.boxes.suppression import *
from mmdet_ext.functional.boxes.suppression_fusion import *
from mmdet_ext.functional.boxes.wise_iou import *

__all__: list[str] = []
__all__ += checks.__all__
__all__ += corner_losses.__all__
__all__ += iou_losses.__all__
__all__ += offset_losses.__all__
__all__ += overlap.__all__
__all__ += pair.__all__
__all__ += shape_losses.__all__
__all__ += suppression.__all__
__all__ += suppression_fusion.__all__
__all__ += wise_iou.__all__
