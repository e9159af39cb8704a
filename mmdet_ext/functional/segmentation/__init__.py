"""Segmentation: losses of overlap between predicted regions and the ground truth."""

from mmdet_ext.functional.segmentation import dice, ratios, regions, sums, tversky
from mmdet_ext.functional.segmentation.dice import *
from mmdet_ext.functional.segmentation.ratios import *
from mmdet_ext.functional.segmentation.regions import *
from mmdet_ext.functional.segmentation.sums import *
from mmdet_ext.functional.segmentation.tversky import *

__all__: list[str] = []
__all__ += dice.__all__
__all__ += ratios.__all__
__all__ += regions.__all__
__all__ += sums.__all__
__all__ += tversky.__all__
