"""Registered margins."""

from mmdet_ext.face.margins.adaptive import AdaFace, CurricularFace, MagFace, SphereFaceR, UniFace
from mmdet_ext.face.margins.fixed import (
    ArcFace,
    CombinedMargin,
    CosFace,
    LSoftmax,
    Margin,
    NormFace,
    Softmax,
    SphereFace,
)

__all__ = [
    'AdaFace',
    'ArcFace',
    'CombinedMargin',
    'CosFace',
    'CurricularFace',
    'LSoftmax',
    'MagFace',
    'Margin',
    'NormFace',
    'Softmax',
    'SphereFace',
    'SphereFaceR',
    'UniFace',
]
