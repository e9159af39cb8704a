"""Registered face heads."""

from mmdet_ext.face.heads.margin_head import MarginHead
from mmdet_ext.face.heads.parts import build_margin

__all__ = ['MarginHead', 'build_margin']
