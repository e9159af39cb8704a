"""Faces: margin heads, metric learning, data, backbones and open-set evaluation.

`FaceRecognizer` is imported when it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmdet_ext.face.recognition.recognizer import FaceRecognizer

__all__ = ['FaceRecognizer']


def __getattr__(name: str) -> Any:
    if name != 'FaceRecognizer':
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from mmdet_ext.face.recognition.recognizer import FaceRecognizer

    return FaceRecognizer
