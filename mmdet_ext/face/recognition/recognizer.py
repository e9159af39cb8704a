"""Recogniser of people in images: detector, alignment, embedder and gallery in one object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mmdet_ext.data.face.alignment import scaled_template
from mmdet_ext.deploy.images import Image
from mmdet_ext.face.gallery import FaceGallery, GalleryError
from mmdet_ext.face.gallery.people import check_name
from mmdet_ext.face.gallery.results import UNKNOWN
from mmdet_ext.face.recognition.crops import crop_faces
from mmdet_ext.face.recognition.drawing import draw_recognitions
from mmdet_ext.face.recognition.errors import RecognitionError
from mmdet_ext.face.recognition.files import open_parts
from mmdet_ext.face.recognition.found import checked_faces
from mmdet_ext.face.recognition.images import as_list, image_name, read_any
from mmdet_ext.face.recognition.results import (
    CropEmbedder,
    DetectedFace,
    Enrolled,
    Face,
    FaceDetector,
    Recognition,
    Refused,
)


class FaceRecognizer:
    """Recogniser of people in images: detector, alignment, embedder and gallery in one object.

    The faces of an image are what the detector finds, at or above a score, in its order. A face
    with five landmarks is aligned to the template; one without is the square around its box.
    The crops are embedded, and the gallery is searched: the name of a face is that of the most
    similar person, or 'unknown' below the threshold.

    Enrol and recognise with one detector: crops by landmarks and crops by boxes are less alike.

    Args:
        embedder: object with ``recogniser`` (its identifier), ``size`` (height and width of a
            crop, px) and ``embed_crops`` (crops (h, w, 3), uint8, BGR, to embeddings (N, D)), such
            as `FileCropEmbedder`, `ConfigCropEmbedder` or `InsightFaceEmbedder`.
        gallery: of the same recogniser; None for a new one.
        detector: function from an image (H, W, 3), uint8, BGR, to a list of `DetectedFace`, such as
            `ConfigDetector` or `FileDetector`. None takes each image, as it is, for one face
            that is aligned already.
        threshold: least cosine of a name, in [-1, 1]. Choose it on your own images: see
            ``tools/face/gallery.py evaluate``.
        min_score: least score of a face.
        largest_only: whether only the largest face of an image counts, by the area of its box.
        margin: share of the longer side of a box that is added on each side, where a face has no
            landmarks; -0.5 and less would leave nothing.
        min_size: least side of a box, px; smaller faces are left out.
        template: landmarks in a crop, (5, 2), px; None for ArcFace's, scaled to the crop.
        top_k: number of candidates of a face.
        batch: largest number of crops of a call of the embedder.

    Raises:
        RecognitionError: if an option is out of range, or the embedder lacks a member.
        GalleryError: if the gallery is of another recogniser.
    """

    def __init__(
        self,
        embedder: CropEmbedder,
        gallery: FaceGallery | None = None,
        detector: FaceDetector | None = None,
        threshold: float = 0.4,
        min_score: float = 0.5,
        largest_only: bool = False,
        *,
        margin: float = 0.0,
        min_size: float = 1.0,
        template: Any = None,
        top_k: int = 5,
        batch: int = 32,
    ) -> None:
        for member in ('recogniser', 'size', 'embed_crops'):
            if not hasattr(embedder, member):
                raise RecognitionError(
                    f'embedder is {type(embedder).__name__}, which has no {member}: take a '
                    'FileCropEmbedder, ConfigCropEmbedder or InsightFaceEmbedder'
                )
        _check_range('threshold', threshold, -1, 1)
        _check_range('min_score', min_score, 0, 1)
        if not -0.5 < margin < 10:
            raise RecognitionError(f'margin must be above -0.5 and below 10, got {margin}')
        if not min_size >= 0:
            raise RecognitionError(f'min_size must be at least 0 px, got {min_size}')
        for name, value in (('top_k', top_k), ('batch', batch)):
            if value < 1:
                raise RecognitionError(f'{name} must be at least 1, got {value}')
        self.embedder = embedder
        self.gallery = FaceGallery(embedder.recogniser) if gallery is None else gallery
        if self.gallery.recogniser != embedder.recogniser:
            raise GalleryError(
                f'the gallery is of the recogniser {self.gallery.recogniser!r}, the embedder is '
                f'{embedder.recogniser!r}; their embeddings cannot be compared. Enrol the images '
                'anew by one of them'
            )
        self.detector = detector
        self.threshold, self.min_score, self.largest_only = threshold, min_score, largest_only
        self.margin, self.min_size, self.top_k, self.batch = margin, min_size, top_k, batch
        height, width = embedder.size
        self.template = np.asarray(
            scaled_template((width, height)) if template is None else template, np.float64
        )
        if self.template.shape != (5, 2):
            raise RecognitionError(
                f'template must be 5 points x, y, got shape {self.template.shape}'
            )

    @classmethod
    def from_files(
        cls,
        model: Any = None,
        gallery: Any = None,
        config: Any = None,
        checkpoint: Any = None,
        detector_config: Any = None,
        detector_checkpoint: Any = None,
        detector: Any = None,
        insightface: dict[str, Any] | None = None,
        face_classes: Sequence[str] | None = None,
        recogniser: str | None = None,
        **options: Any,
    ) -> FaceRecognizer:
        """Open a recogniser, a detector and a gallery from files.

        Args:
            model: file of ``tools/deploy/export.py``, which needs no torch; with ``insightface``,
                an ONNX file of InsightFace; None for ``config`` and ``checkpoint``.
            gallery: folder of a saved gallery; None, or a folder without one, for a new gallery.
            config: of the recogniser.
            checkpoint: its weights.
            detector_config: of any detector of mmdet.
            detector_checkpoint: its weights.
            detector: file of ``tools/deploy/export.py``, instead of the two. Without either, an
                image is one face.
            insightface: options of `InsightFaceEmbedder`: ``mean``, ``std``, ``rgb``.
            face_classes: names of the detector's classes that are faces; None for all.
            recogniser: identifier of the recogniser; None for that of the files' contents.
            **options: of the class.

        Raises:
            RecognitionError: if files are missing or too many are given.
            GalleryError, DeployError, OSError: if a file cannot be used.
        """
        embedder, found, opened = open_parts(
            model,
            gallery,
            (config, checkpoint),
            (detector_config, detector_checkpoint, detector),
            insightface,
            face_classes,
            recogniser,
        )
        return cls(embedder, opened, found, **options)

    def faces(self, image: Image) -> list[Face]:
        """Find, crop and embed the faces of an image.

        Args:
            image: path; or pixels of uint8: grey, BGR or BGRA.

        Raises:
            ImageError: if it cannot be read.
            RecognitionError: if the detector or the embedder returns what it must not.
        """
        (found,) = self.faces_of([image])
        return found

    def faces_of(self, images: Image | Sequence[Image]) -> list[list[Face]]:
        """Find, crop and embed the faces of several images; crops of all share the batches.

        Args:
            images: of the form that `faces` has.

        Raises:
            ImageError, RecognitionError: as `faces`; the error names the image.
        """
        detected, crops = [], []
        for place, given in enumerate(as_list(images)):
            name = image_name(given, place)
            image = read_any(given, name)
            faces = self._detected(image, name)
            detected.append(faces)
            # Without a detector the embedder gets the image itself, and resizes it as in training.
            crops += self._crops(image, faces) if self.detector is not None else [image]
        rows = iter(zip(crops, self._embedded(crops), strict=True))
        return [[Face(*face, *next(rows)) for face in faces] for faces in detected]

    def enrol(self, name: str, images: Image | Sequence[Image]) -> Enrolled:
        """Enrol a person by images with exactly one face each.

        An image that cannot be read, or has no face or several, is refused with the reason, and the
        others are enrolled. With ``largest_only`` the largest of several faces counts. A person who
        is enrolled already gets the images added.

        Args:
            name: of the person.
            images: one or several, of the form that `faces` has.

        Raises:
            GalleryError: if the name cannot be used.
        """
        check_name(name)
        done: list[str] = []
        faces: list[Face] = []
        refused: list[Refused] = []
        for place, image in enumerate(as_list(images)):
            known_as = image_name(image, place)
            try:
                found = self.faces(image)
            except (ValueError, OSError) as error:
                refused.append(Refused(known_as, str(error)))
                continue
            if len(found) == 1:
                done.append(known_as)
                faces += found
            else:
                refused.append(Refused(known_as, _not_one(found)))
        if faces:
            embeddings = np.stack([face.embedding for face in faces])
            self.gallery.enrol(name, embeddings, self.embedder.recogniser)
        return Enrolled(name, tuple(done), tuple(refused), tuple(faces))

    def recognize(self, images: Image | Sequence[Image]) -> list[list[Recognition]]:
        """Name the faces of images.

        Args:
            images: one or several, of the form that `faces` has.

        Returns:
            list[list[Recognition]]: of each image its faces; an empty list where it has none.

        Raises:
            ImageError, RecognitionError: as `faces`; the error names the image.
        """
        faces = self.faces_of(images)
        rows = [face.embedding for each in faces for face in each]
        if not rows:
            return [[] for _ in faces]
        found = iter(
            self.gallery.search(
                np.stack(rows), self.top_k, self.threshold, self.embedder.recogniser
            )
        )
        return [[_named(face, next(found)) for face in each] for each in faces]

    def draw(self, image: Image, recognitions: Sequence[Recognition]) -> np.ndarray:
        """Return a copy of an image with boxes, names and similarities.

        Args:
            image: of the form that `faces` has.
            recognitions: of the image.

        Returns:
            ndarray: (H, W, 3), uint8, BGR.
        """
        return draw_recognitions(read_any(image, 'the image'), recognitions)

    def _detected(self, image: np.ndarray, name: str) -> list[DetectedFace]:
        height, width = image.shape[:2]
        if self.detector is None:
            return [DetectedFace((0.0, 0.0, float(width), float(height)), 1.0)]
        found = checked_faces(self.detector(image), name)
        kept = [
            face
            for face in found
            if face.score >= self.min_score and _visible(face, width, height) >= self.min_size
        ]
        return [max(kept, key=_area)] if kept and self.largest_only else kept

    def _crops(self, image: np.ndarray, faces: Sequence[DetectedFace]) -> list[np.ndarray]:
        return crop_faces(image, faces, self.embedder.size, self.template, self.margin)

    def _embedded(self, crops: list[np.ndarray]) -> np.ndarray:
        parts = [
            np.asarray(self.embedder.embed_crops(crops[start : start + self.batch]), np.float32)
            for start in range(0, len(crops), self.batch)
        ]
        rows = np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)
        if rows.ndim != 2 or len(rows) != len(crops):
            raise RecognitionError(
                f'embed_crops of {type(self.embedder).__name__} gave shape {rows.shape} for '
                f'{len(crops)} crops; it must give (number, size)'
            )
        return rows


def _named(face: Face, found: Any) -> Recognition:
    best = found.candidates[0].cosine if found.candidates else None
    name = found.name if found.candidates else UNKNOWN
    return Recognition(face.box, face.score, face.landmarks, name, best, found.candidates)


def _not_one(faces: Sequence[Face]) -> str:
    if not faces:
        return 'no face was found'
    return (
        f'{len(faces)} faces were found, but the image of a person must have one: cut it out, or '
        'choose the largest (largest_only)'
    )


def _area(face: DetectedFace) -> float:
    x1, y1, x2, y2 = face.box
    return (x2 - x1) * (y2 - y1)


def _visible(face: DetectedFace, width: int, height: int) -> float:
    """Return the shorter side of the part of a box that lies in the image, px."""
    x1, y1, x2, y2 = face.box
    return min(min(x2, width) - max(x1, 0.0), min(y2, height) - max(y1, 0.0))


def _check_range(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise RecognitionError(f'{name} must be in [{least}, {most}], got {value}')
