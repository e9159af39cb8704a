"""Recognisers, detectors and galleries opened from files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmdet_ext.face.gallery import FaceGallery
from mmdet_ext.face.gallery.storage import MANIFEST
from mmdet_ext.face.recognition.detectors import ConfigDetector, FileDetector
from mmdet_ext.face.recognition.embedders import ConfigCropEmbedder, FileCropEmbedder
from mmdet_ext.face.recognition.errors import RecognitionError
from mmdet_ext.face.recognition.insightface_onnx import InsightFaceEmbedder
from mmdet_ext.face.recognition.results import CropEmbedder, FaceDetector


def open_parts(
    model: Any,
    gallery: Any,
    recogniser_files: tuple[Any, Any],
    detector_files: tuple[Any, Any, Any],
    insightface: Mapping[str, Any] | None,
    face_classes: Sequence[str] | None,
    recogniser: str | None,
) -> tuple[CropEmbedder, FaceDetector | None, FaceGallery]:
    """Open the three parts of a `FaceRecognizer`; see its ``from_files``.

    Args:
        model: file of the recogniser, or None.
        gallery: folder, or None.
        recogniser_files: config and checkpoint, or None.
        detector_files: config, checkpoint and exported file, or None.
        insightface: options of `InsightFaceEmbedder`, or None.
        face_classes: classes of the detector, or None.
        recogniser: identifier, or None.
    """
    embedder = _open_embedder(model, recogniser_files, insightface, recogniser)
    detector = _open_detector(detector_files, face_classes)
    return embedder, detector, _open_gallery(gallery, embedder.recogniser)


def _open_embedder(
    model: Any,
    files: tuple[Any, Any],
    insightface: Mapping[str, Any] | None,
    recogniser: str | None,
) -> CropEmbedder:
    config, checkpoint = files
    if (model is None) == (config is None) or (config is None) != (checkpoint is None):
        raise RecognitionError('give model, or config and checkpoint of the recogniser')
    if model is None:
        if insightface is not None:
            raise RecognitionError('insightface belongs to model, an ONNX file of InsightFace')
        return ConfigCropEmbedder(config, checkpoint, recogniser)
    if insightface is not None:
        return InsightFaceEmbedder(model, recogniser=recogniser, **insightface)
    return FileCropEmbedder(model, recogniser)


def _open_detector(
    files: tuple[Any, Any, Any], face_classes: Sequence[str] | None
) -> FaceDetector | None:
    config, checkpoint, file = files
    if (config is None) != (checkpoint is None) or (file is not None and config is not None):
        raise RecognitionError(
            'give detector_config and detector_checkpoint, or detector (an exported file), or none '
            'of the three: then an image is one face'
        )
    if config is not None:
        return ConfigDetector(config, checkpoint, face_classes)
    return None if file is None else FileDetector(file, face_classes)


def _open_gallery(folder: Any, recogniser: str) -> FaceGallery:
    if folder is None or not (Path(folder) / MANIFEST).is_file():
        return FaceGallery(recogniser)
    return FaceGallery.open(folder, recogniser)
