"""YOLO v1 to v5: matching and losses of predictions on a grid, as in the papers."""

from mmdet_ext.functional.yolo import anchors, terms, v1, v2, v5
from mmdet_ext.functional.yolo.anchors import *
from mmdet_ext.functional.yolo.terms import *
from mmdet_ext.functional.yolo.v1 import *
from mmdet_ext.functional.yolo.v2 import *
from mmdet_ext.functional.yolo.v5 import *

__all__: list[str] = []
__all__ += anchors.__all__
__all__ += terms.__all__
__all__ += v1.__all__
__all__ += v2.__all__
__all__ += v5.__all__
