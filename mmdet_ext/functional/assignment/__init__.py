"""Label assignment: the ground-truth box that each prior learns."""

from mmdet_ext.functional.assignment import (
    assignment,
    atss,
    cells,
    center_heatmap,
    claims,
    dynamic_k,
    fcos,
    geometry,
    grids,
    max_iou,
    prior_blocks,
    rfla,
    simota,
    soft_label,
    task_aligned,
    yolo,
)
from mmdet_ext.functional.assignment.assignment import *
from mmdet_ext.functional.assignment.atss import *
from mmdet_ext.functional.assignment.cells import *
from mmdet_ext.functional.assignment.center_heatmap import *
from mmdet_ext.functional.assignment.claims import *
from mmdet_ext.functional.assignment.dynamic_k import *
from mmdet_ext.functional.assignment.fcos import *
from mmdet_ext.functional.assignment.geometry import *
from mmdet_ext.functional.assignment.grids import *
from mmdet_ext.functional.assignment.max_iou import *
from mmdet_ext.functional.assignment.prior_blocks import *
from mmdet_ext.functional.assignment.rfla import *
from mmdet_ext.functional.assignment.simota import *
from mmdet_ext.functional.assignment.soft_label import *
from mmdet_ext.functional.assignment.task_aligned import *
from mmdet_ext.functional.assignment.yolo import *

__all__: list[str] = []
__all__ += assignment.__all__
__all__ += atss.__all__
__all__ += cells.__all__
__all__ += center_heatmap.__all__
__all__ += claims.__all__
__all__ += dynamic_k.__all__
__all__ += fcos.__all__
__all__ += geometry.__all__
__all__ += grids.__all__
__all__ += max_iou.__all__
__all__ += prior_blocks.__all__
__all__ += rfla.__all__
__all__ += simota.__all__
__all__ += soft_label.__all__
__all__ += task_aligned.__all__
__all__ += yolo.__all__
