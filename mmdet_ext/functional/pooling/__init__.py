"""Pooling: regions of maps and images brought to one size, and maps of one size fused."""

from mmdet_ext.functional.pooling import fusion, warp, windows
from mmdet_ext.functional.pooling.fusion import *
from mmdet_ext.functional.pooling.warp import *
from mmdet_ext.functional.pooling.windows import *

__all__: list[str] = []
__all__ += fusion.__all__
__all__ += warp.__all__
__all__ += windows.__all__
