"""Images out of face records into folders, and from folders into records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from mmdet_ext.data.face.folder import FaceList, list_faces
from mmdet_ext.data.face.record_report import (
    MOST_LISTED,
    OpenedRecords,
    Track,
    reasons_by_record,
    short_reason,
)
from mmdet_ext.data.face.records import FaceRecords, write_face_records
from mmdet_ext.data.images import decode_image
from mmdet_ext.utils.files import whole_file

#: Takes a warning for the user.
Warn = Callable[[str], None]

_JPEG_START = b'\xff\xd8'
_SUFFIXES = (
    (_JPEG_START, '.jpg'),
    (b'\x89PNG', '.png'),
    (b'BM', '.bmp'),
    (b'P5', '.pgm'),
    (b'P6', '.ppm'),
    (b'RIFF', '.webp'),
    (b'GIF8', '.gif'),
    (b'II*\0', '.tif'),
    (b'MM\0*', '.tif'),
)


def extract_images(
    opened: OpenedRecords,
    faces: FaceRecords,
    folder: Path,
    *,
    identities: Sequence[int] | None,
    limit: int | None,
    track: Track,
) -> tuple[list[int], dict[int, str]]:
    """Write images byte for byte into a folder per identity; broken images are left out.

    Args:
        opened: the file of records.
        faces: its images.
        folder: target folder.
        identities: labels to extract; None or empty for all.
        limit: largest number of images; None for all.
        track: shows the progress.

    Returns:
        tuple: the label of each image written, and the reason of each bad record by its number.

    Raises:
        ValueError: if one of ``identities`` has no image.
    """
    chosen = np.arange(len(faces.keys))
    if identities:
        absent = sorted(set(identities) - set(faces.labels.tolist()))
        if absent:
            raise ValueError(
                f'identities {absent[:MOST_LISTED]} have no image in {opened.file.path}'
            )
        chosen = chosen[np.isin(faces.labels, identities)]
    bad, written = reasons_by_record(faces), []
    digits = len(str(int(faces.labels.max()))) if len(faces.labels) else 1
    with track(chosen[:limit].tolist()) as rows:
        for row in rows:
            key, label = int(faces.keys[row]), int(faces.labels[row])
            try:
                data = opened.file.read_at(int(faces.offsets[row]), key).data
                decode_image(data)
            except ValueError as error:
                bad[key] = short_reason(error, key)
                continue
            suffix = next((end for start, end in _SUFFIXES if data.startswith(start)), '.img')
            with whole_file(folder / f'{label:0{digits}d}' / f'{key:08d}{suffix}') as part:
                part.write_bytes(data)
            written.append(label)
    return written, bad


def bad_records_text(bad: dict[int, str]) -> str:
    """Say which records were not extracted, and why."""
    shown = '; '.join(f'record {key}: {bad[key]}' for key in sorted(bad)[:MOST_LISTED])
    more = f'; and {len(bad) - MOST_LISTED} more, see `inspect --check`'
    return f'{len(bad)} records are bad and were not extracted: {shown}' + (
        more if len(bad) > MOST_LISTED else ''
    )


def write_folder(
    folder: Path,
    out: Path,
    *,
    size: tuple[int, int],
    quality: int,
    bad_images: str,
    force: bool,
    warn: Warn,
    track: Track,
) -> str:
    """Write ``train.rec``, ``train.idx`` and ``property`` from a folder of identities.

    The identities are those that `list_faces` finds, in its order; their names are written to
    ``identities.txt``. JPEG images of the right size are stored byte for byte.

    Args:
        folder: folder with one folder per identity.
        out: target folder.
        size: height and width of the stored images, px.
        quality: quality of the JPEG images that are encoded, 1 .. 100.
        bad_images: 'error' or 'drop' for images that cannot be used.
        force: replace an existing ``train.rec``.
        warn: takes the warnings.
        track: shows the progress.

    Returns:
        Summary of what was written.

    Raises:
        FileNotFoundError: if ``folder`` is absent.
        ValueError: if an option is out of its range, ``train.rec`` exists, or images are bad.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f'folder {str(folder)!r} is not there')
    if min(size) < 1 or not 1 <= quality <= 100:
        raise ValueError(
            f'--size must be above 0 and --quality in 1..100, got {list(size)} and {quality}'
        )
    rec = out / 'train.rec'
    if rec.exists() and not force:
        raise ValueError(f'{rec} is there already: give another folder, or --force')
    faces = list_faces(folder, bad_images='drop')
    if faces.left_out or faces.oddities:
        warn(str(faces))
    if faces.bad and bad_images == 'error':
        raise ValueError(
            f'{faces.bad} images cannot be used. Mend them, or give --bad-pictures drop'
        )
    encoder = _Encoder(size, quality, bad_images)
    with track(list(_paths_by_name(faces).items())) as identities:
        counts = write_face_records(
            (encoder.identity(*identity) for identity in identities), rec, size
        )
    names = [name for name in faces.classes if name not in encoder.empty]
    with whole_file(out / 'identities.txt') as part:
        part.write_text(''.join(f'{name}\n' for name in names), encoding='utf-8')
    for note in encoder.notes():
        warn(note)
    return (
        f'{sum(counts)} images of {len(counts)} identities ({encoder.kept} byte for byte, '
        f'{encoder.encoded} encoded, {encoder.resized} of them resized)\n{rec}'
    )


def _paths_by_name(faces: FaceList) -> dict[str, list[Path]]:
    """Map the name of each identity to the paths of its images."""
    paths: dict[str, list[Path]] = {name: [] for name in faces.classes}
    for path, label in zip(faces.paths, faces.labels, strict=True):
        paths[faces.classes[label]].append(Path(path))
    return paths


class _Encoder:
    """Encoder of image files for records, which counts what it does."""

    def __init__(self, size: tuple[int, int], quality: int, bad_images: str) -> None:
        self.size = size
        self.quality, self.bad_images = quality, bad_images
        self.kept = self.encoded = self.resized = self.stretched = 0
        self.bad: list[str] = []
        self.empty: set[str] = set()

    def identity(self, name: str, paths: list[Path]) -> list[bytes]:
        """Encode the images of an identity."""
        stored = [data for path in paths if (data := self._encode(path)) is not None]
        if not stored:
            self.empty.add(name)
        return stored

    def notes(self) -> list[str]:
        """List what a user should know beyond the report of the images found."""
        empty = ', '.join(sorted(self.empty)[:MOST_LISTED])
        return [
            f'{count} {text}'
            for count, text in (
                (len(self.bad), f'dropped, cannot be decoded: {"; ".join(self.bad[:MOST_LISTED])}'),
                (len(self.empty), f'folders without a usable image, without a label: {empty}'),
                (self.stretched, 'images of another aspect ratio, stretched'),
            )
            if count
        ]

    def _encode(self, path: Path) -> bytes | None:
        """Encode an image at the right size; None if it is dropped."""
        try:
            data = path.read_bytes()
            image = decode_image(data)
        except ValueError as error:
            if self.bad_images == 'error':
                raise ValueError(
                    f'{path}: {error}. Mend it, or give --bad-pictures drop'
                ) from error
            self.bad.append(f'{path}: {error}')
            return None
        height, width = image.shape[:2]
        if (height, width) == self.size and data.startswith(_JPEG_START):
            self.kept += 1
            return data
        if (height, width) != self.size:
            self.resized += 1
            self.stretched += height * self.size[1] != width * self.size[0]
            shrinks = height * width > self.size[0] * self.size[1]
            way = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
            image = np.asarray(cv2.resize(image, self.size[::-1], interpolation=way), np.uint8)
        self.encoded += 1
        return cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, self.quality])[1].tobytes()
