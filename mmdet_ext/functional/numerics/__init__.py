"""Numerics that every subject needs: precision, checks, chunks, reduction and derivatives."""

from mmdet_ext.functional.numerics import (
    bounds,
    checks,
    chunks,
    derivative,
    directions,
    map_blocks,
    order,
    precision,
    reduction,
    row_blocks,
)
from mmdet_ext.functional.numerics.bounds import *
from mmdet_ext.functional.numerics.checks import *
from mmdet_ext.functional.numerics.chunks import *
from mmdet_ext.functional.numerics.derivative import *
from mmdet_ext.functional.numerics.directions import *
from mmdet_ext.functional.numerics.map_blocks import *
from mmdet_ext.functional.numerics.order import *
from mmdet_ext.functional.numerics.precision import *
from mmdet_ext.functional.numerics.reduction import *
from mmdet_ext.functional.numerics.row_blocks import *

__all__: list[str] = []
__all__ += bounds.__all__
__all__ += checks.__all__
__all__ += chunks.__all__
__all__ += derivative.__all__
__all__ += directions.__all__
__all__ += map_blocks.__all__
__all__ += order.__all__
__all__ += precision.__all__
__all__ += reduction.__all__
__all__ += row_blocks.__all__
