"""Detectors of faces: any detector of mmdet, as an exported file or a config with a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from mmdet_ext.deploy.detector import Detector
from mmdet_ext.engine.errors import InputError
from mmdet_ext.face.recognition.errors import RecognitionError
from mmdet_ext.face.recognition.results import DetectedFace

#: Fields of mmdet's instances in which a detector may have five landmarks.
_LANDMARKS = ('keypoints', 'landmarks')


class FileDetector:
    """Detector in a file of ``tools/deploy/export.py``; it needs no torch, and has no landmarks.

    Args:
        path: the ``.onnx``, ``.xml`` or ``.param`` file.
        face_classes: names of the classes that are faces; None for all.
        runtime: as in `mmdet_ext.deploy.Detector`.
        threads: as in `mmdet_ext.deploy.Detector`.

    Raises:
        ModelFileError: if the file cannot be used.
        RecognitionError: if the detector has no class of that name.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        face_classes: Sequence[str] | None = None,
        runtime: str | None = None,
        threads: int | None = None,
    ) -> None:
        self.model = Detector(path, runtime, threads)
        self._labels = _labels(self.model.classes, face_classes)

    def __call__(self, image: np.ndarray, /) -> list[DetectedFace]:
        """Find the faces of an image (H, W, 3), uint8, BGR; the best come first."""
        (found,) = self.model([image])
        return _faces(found.boxes, found.scores, found.labels, None, self._labels)


class ConfigDetector:
    """Detector of a config of mmdet and a checkpoint.

    Its test pipeline prepares the image. Where its instances have ``keypoints`` or ``landmarks`` of
    the form (N, 5, 2), those are the landmarks of the faces.

    Args:
        config: path, or what MMEngine read of it.
        checkpoint: file of its weights.
        face_classes: names of the classes that are faces; None for all.
        device: of the network, such as ``cuda:0``.

    Raises:
        RecognitionError: if the config has no test pipeline, or no class of that name.
        ValueError, OSError: if the config or the weights cannot be used.
    """

    def __init__(
        self,
        config: Any,
        checkpoint: str | PathLike[str],
        face_classes: Sequence[str] | None = None,
        device: str = 'cpu',
    ) -> None:
        from mmdet_ext.engine.detector import TorchDetector

        try:
            self.model = TorchDetector(config, Path(checkpoint), device)
        except InputError as error:
            raise RecognitionError(str(error)) from error
        self._labels = _labels(self.model.classes, face_classes)

    def __call__(self, image: np.ndarray, /) -> list[DetectedFace]:
        """Find the faces of an image (H, W, 3), uint8, BGR; the best come first."""
        found = self.model(image)
        points = next((found[key] for key in _LANDMARKS if key in found), None)
        return _faces(found['bboxes'], found['scores'], found['labels'], points, self._labels)


def _labels(classes: Sequence[str], chosen: Sequence[str] | None) -> frozenset[int] | None:
    """Return the labels of the classes that are faces; None for all."""
    if chosen is None:
        return None
    absent = [name for name in chosen if name not in classes]
    if absent or isinstance(chosen, str):
        raise RecognitionError(
            f'face_classes {chosen!r} must be a list of classes of the detector, which has '
            f'{", ".join(map(str, classes)) or "none"}'
        )
    return frozenset(list(classes).index(name) for name in chosen)


def _faces(
    boxes: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    landmarks: np.ndarray | None,
    chosen: frozenset[int] | None,
) -> list[DetectedFace]:
    if landmarks is not None and landmarks.shape[1:] not in ((5, 2), (5, 3)):
        landmarks = None
    faces = []
    for place in np.argsort(-scores, kind='stable'):
        if chosen is None or int(labels[place]) in chosen:
            x1, y1, x2, y2 = boxes[place].tolist()
            points = None if landmarks is None else landmarks[place, :, :2].astype(np.float64)
            faces.append(DetectedFace((x1, y1, x2, y2), float(scores[place]), points))
    return faces
