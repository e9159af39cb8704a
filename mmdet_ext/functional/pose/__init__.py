"""Pose: heatmaps of joints, tags and part affinity fields that tell people apart."""

from mmdet_ext.functional.pose import corners, fields, grouping, heatmaps, people
from mmdet_ext.functional.pose.corners import *
from mmdet_ext.functional.pose.fields import *
from mmdet_ext.functional.pose.grouping import *
from mmdet_ext.functional.pose.heatmaps import *
from mmdet_ext.functional.pose.people import *

__all__: list[str] = []
__all__ += corners.__all__
__all__ += fields.__all__
__all__ += grouping.__all__
__all__ += heatmaps.__all__
__all__ += people.__all__
