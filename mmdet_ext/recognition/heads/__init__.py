"""The margin head and its margins."""

from .adaptive_margins import AdaFace, CurricularFace, MagFace, SphereFaceR, UniFace
from .margin_head import MarginHead, build_margin
from .margins import (
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
    'AdaFace', 'ArcFace', 'CombinedMargin', 'CosFace', 'CurricularFace', 'LSoftmax', 'MagFace',
    'Margin', 'MarginHead', 'NormFace', 'Softmax', 'SphereFace', 'SphereFaceR', 'UniFace',
    'build_margin',
]  # fmt: skip
