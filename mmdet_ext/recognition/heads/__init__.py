"""The margin head and its margins."""

from .adaptive_margins import AdaFace, CurricularFace, MagFace, SphereFaceR, UniFace
from .margin_head import MarginHead
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
from .parts import build_margin

__all__ = [
    'AdaFace', 'ArcFace', 'CombinedMargin', 'CosFace', 'CurricularFace', 'LSoftmax', 'MagFace',
    'Margin', 'MarginHead', 'NormFace', 'Softmax', 'SphereFace', 'SphereFaceR', 'UniFace',
    'build_margin',
]  # fmt: skip
