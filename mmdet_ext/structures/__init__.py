"""What passes between heads and assigners: built once a step, never changed."""

from mmdet_ext.structures.assignment import Assignment
from mmdet_ext.structures.batch_geometry import BatchGeometry, Predictions

__all__ = ['Assignment', 'BatchGeometry', 'Predictions']
