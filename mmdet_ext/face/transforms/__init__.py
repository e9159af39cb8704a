"""Transforms of faces."""

from mmdet_ext.face.transforms.align import AlignFace
from mmdet_ext.face.transforms.load import LoadFace

__all__ = ['AlignFace', 'LoadFace']
