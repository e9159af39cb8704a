"""Work of the page, one change at a time: enrol, search, list and remove people."""

from __future__ import annotations

import os
import threading
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmdet_ext.face.gallery import FaceGallery, GalleryError
from mmdet_ext.face.gallery.storage import MANIFEST
from mmdet_ext.face.page.uploads import Limits, RefusedImageError, read_upload
from mmdet_ext.face.recognition import FaceRecognizer, Recognition

_LONGEST_NAME = 100

UploadedFile = str | os.PathLike[str]


class ConsentError(ValueError):
    """Error for an enrolment without the person's consent."""


@dataclass(frozen=True)
class EnrolReport:
    """Outcome of an enrolment.

    Attributes:
        name: of the person.
        images: number of images that were enrolled.
        refused: name and reason of each of the others.
    """

    name: str
    images: int
    refused: tuple[tuple[str, str], ...]


@dataclass(frozen=True, eq=False)
class SearchReport:
    """Outcome of a search.

    Attributes:
        image: (H, W, 3) uint8, BGR, with boxes and names.
        faces: the faces that were found, with their names.
    """

    image: np.ndarray
    faces: tuple[Recognition, ...]


class FaceDesk:
    """Enrolment, search and removal on a gallery in a folder, for several users at once.

    Requests run one after the other. Each change is saved before it is reported; where that fails,
    the gallery is as it was. The folder has embeddings, names and counts, and no image.

    Args:
        recognizer: its gallery is replaced by that of the folder, where there is one.
        folder: of the gallery; made by the first enrolment.
        limits: largest uploads.

    Raises:
        GalleryError: if the folder holds a gallery of another recogniser, or a damaged one.
    """

    def __init__(
        self,
        recognizer: FaceRecognizer,
        folder: str | os.PathLike[str],
        limits: Limits | None = None,
    ) -> None:
        self.recognizer = recognizer
        self.folder = Path(folder)
        self.limits = limits or Limits()
        self._lock = threading.Lock()
        self._load()

    def people(self) -> dict[str, int]:
        """Return the number of enrolled images of each person, in the order of enrolment."""
        with self._lock:
            return self.recognizer.gallery.images

    def enrol(self, name: str, files: Sequence[UploadedFile], consent: bool) -> EnrolReport:
        """Enrol a person by images with one face each; a known name gets the images added.

        Args:
            name: of the person.
            files: images; those that cannot be used are reported, and the others enrolled.
            consent: whether the person agreed.

        Raises:
            ConsentError: if ``consent`` is not True. Nothing is read then.
            RefusedImageError: if there is no image, or too many.
            GalleryError: if the name cannot be used, or the gallery cannot be saved.
        """
        if consent is not True:
            raise ConsentError(
                "nobody is enrolled without consent: tick the box once you have the person's"
            )
        name = _checked_name(name)
        if not files:
            raise RefusedImageError('there is no image: choose a file, or take one by the webcam')
        if len(files) > self.limits.max_files:
            raise RefusedImageError(
                f'{len(files)} images are more than the {self.limits.max_files} that are accepted '
                'at once: enrol them in parts'
            )
        with self._lock, self._whole():
            images, names, refused = [], [], []
            for file in files:
                try:
                    images.append(read_upload(file, self.limits))
                    names.append(Path(file).name)
                except RefusedImageError as error:
                    refused.append((Path(file).name, str(error)))
            count = 0
            for image, known_as in zip(images, names, strict=True):
                done = self.recognizer.enrol(name, [image])
                count += len(done.images)
                refused += [(known_as, each.reason) for each in done.refused]
            if count:
                self.recognizer.gallery.save(self.folder)
            return EnrolReport(name, count, tuple(refused))

    def search(self, file: UploadedFile) -> SearchReport:
        """Name the faces of an image.

        Raises:
            RefusedImageError: if the image cannot be used.
        """
        with self._lock:
            image = read_upload(file, self.limits)
            (faces,) = self.recognizer.recognize([image])
            return SearchReport(self.recognizer.draw(image, faces), tuple(faces))

    def remove(self, name: str) -> int:
        """Remove a person from memory and from the files; return the number of images.

        Raises:
            GalleryError: if nobody of that name is enrolled, or the gallery cannot be saved.
        """
        with self._lock, self._whole():
            count = self.recognizer.gallery.remove(name)
            self.recognizer.gallery.compact()
            self.recognizer.gallery.save(self.folder)
            return count

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Go back to what the folder holds where the block does not end."""
        try:
            yield
        except BaseException as error:
            self._load()
            if isinstance(error, OSError):
                raise GalleryError(
                    f'the gallery cannot be saved ({error.strerror}): nothing was changed'
                ) from error
            raise

    def _load(self) -> None:
        """Take the gallery of the folder, or an empty one where there is none."""
        owner, old = self.recognizer.embedder.recogniser, self.recognizer.gallery
        if (self.folder / MANIFEST).is_file():
            self.recognizer.gallery = FaceGallery.open(self.folder, owner)
        else:
            self.recognizer.gallery = FaceGallery(owner, old.pooling, old.index, old.effort)


def _checked_name(name: str) -> str:
    name = unicodedata.normalize('NFC', name or '').strip()
    if not name or len(name) > _LONGEST_NAME:
        raise GalleryError(f'a name has 1 to {_LONGEST_NAME} letters, got {len(name)}: type it')
    if any(unicodedata.category(letter).startswith('C') for letter in name):
        raise GalleryError('the name has letters that cannot be seen: type it anew')
    return name
