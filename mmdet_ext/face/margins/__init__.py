"""Margins of the registry ``MARGINS``; importing this package registers them."""

from mmdet_ext.face.margins import adaptive, fixed
from mmdet_ext.face.margins.base import Margin

__all__ = ['Margin', 'adaptive', 'fixed']
