"""Results of recognition, and the forms that a detector and an embedder have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from mmdet_ext.face.gallery.results import Candidate


class DetectedFace(NamedTuple):
    """Face that a detector found.

    Attributes:
        box: x1, y1, x2, y2 in px of the image.
        score: in [0, 1].
        landmarks: (5, 2), px of the image: left eye, right eye, nose, left and right corner of
            the mouth, left and right as in the image; None where the detector finds none.
    """

    box: tuple[float, float, float, float]
    score: float
    landmarks: np.ndarray | None = None


class FaceDetector(Protocol):
    """Function from an image (H, W, 3), uint8, BGR, to the faces in it."""

    def __call__(self, image: np.ndarray, /) -> Sequence[DetectedFace]:
        """Find the faces of an image."""
        ...


class CropEmbedder(Protocol):
    """Recogniser that embeds crops of faces."""

    @property
    def recogniser(self) -> str:
        """Identifier: embeddings of two identifiers cannot be compared."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, px, that a crop should have."""
        ...

    def embed_crops(self, crops: Sequence[np.ndarray], /) -> np.ndarray:
        """Compute embeddings (N, D) of N crops (H, W, 3), uint8, BGR."""
        ...


@dataclass(frozen=True, eq=False)
class Face:
    """Face of an image, cropped and embedded.

    Attributes:
        box: x1, y1, x2, y2 in px of the image.
        score: of the detector.
        landmarks: (5, 2), px of the image, or None.
        crop: what was embedded, (h, w, 3), uint8, BGR.
        embedding: (D,) float32.
    """

    box: tuple[float, float, float, float]
    score: float
    landmarks: np.ndarray | None
    crop: np.ndarray
    embedding: np.ndarray


@dataclass(frozen=True, eq=False)
class Recognition:
    """Face of an image with its name.

    Attributes:
        box: x1, y1, x2, y2 in px of the image.
        score: of the detector.
        landmarks: (5, 2), px of the image, or None.
        name: of the best candidate; 'unknown' where its similarity is below the threshold, or
            nobody is enrolled.
        similarity: cosine of the best candidate, in [-1, 1]; None where nobody is enrolled.
        candidates: the most similar people, the best first, also those below the threshold.
    """

    box: tuple[float, float, float, float]
    score: float
    landmarks: np.ndarray | None
    name: str
    similarity: float | None
    candidates: tuple[Candidate, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for json."""
        points = None if self.landmarks is None else np.round(self.landmarks, 3).tolist()
        return {
            'name': self.name,
            'similarity': self.similarity,
            'box': [round(float(value), 3) for value in self.box],
            'score': round(float(self.score), 6),
            'landmarks': points,
            'candidates': [candidate._asdict() for candidate in self.candidates],
        }


class Refused(NamedTuple):
    """Image that was not enrolled.

    Attributes:
        image: its path, or ``image 0`` by its place in the list.
        reason: why.
    """

    image: str
    reason: str


@dataclass(frozen=True, eq=False)
class Enrolled:
    """Outcome of an enrolment.

    Attributes:
        name: of the person.
        images: the images that were enrolled: their paths, or ``image 0`` by place in the list.
        refused: the other images, each with its reason.
        faces: the faces that were enrolled, in the order of ``images``.
    """

    name: str
    images: tuple[str, ...]
    refused: tuple[Refused, ...]
    faces: tuple[Face, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for json."""
        return {
            'name': self.name,
            'images': list(self.images),
            'refused': [each._asdict() for each in self.refused],
        }
