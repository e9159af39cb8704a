"""Transforms of faces."""

from mmdet_ext.recognition.transforms.align import AlignFace
from mmdet_ext.recognition.transforms.load import LoadFace

__all__ = ['AlignFace', 'LoadFace']
