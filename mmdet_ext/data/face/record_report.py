"""Reports of files of face records: counts, sizes, oddities, and corrupt records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmdet_ext.data.face.records import (
    FaceRecords,
    RecordError,
    RecordFile,
    read_face_records,
    read_property,
)
from mmdet_ext.data.images import decode_image

#: Context around a loop, which shows its progress: takes the tasks and yields an iterator of them.
Track = Callable[[Sequence[Any]], AbstractContextManager[Iterator[Any]]]

#: Corrupt records and image sizes that a text lists.
MOST_LISTED = 20

_SAMPLE = 50
_BAR = 40


@dataclass(frozen=True)
class OpenedRecords:
    """A file of records, and the contents of its ``property`` file.

    Attributes:
        file: the records.
        classes: number of classes, None without a ``property`` file.
        size: height and width of the images, None without a ``property`` file.
    """

    file: RecordFile
    classes: int | None
    size: tuple[int, int] | None


def open_records(path: Path, idx_path: Path | None = None) -> OpenedRecords:
    """Open a file of records and read the ``property`` file beside it.

    Args:
        path: a ``.rec`` file, or the folder of ``train.rec``.
        idx_path: its index; None takes the one beside it.
    """
    path = path / 'train.rec' if path.is_dir() else path
    file = RecordFile(path, idx_path)
    beside = path.with_name('property')
    if not beside.is_file():
        file.notes.append('no property file beside it')
        return OpenedRecords(file, None, None)
    classes, height, width = read_property(beside)
    return OpenedRecords(file, classes, (height, width))


def report_records(
    opened: OpenedRecords, *, scan: bool, check: bool, track: Track
) -> tuple[dict[str, Any], int]:
    """Make the report of a file of records.

    Args:
        opened: the file.
        scan: read the label in the header of each image.
        check: read each header and decode each image; otherwise about 50 images are decoded, at
            even distances in the file.
        track: shows the progress of ``check``.

    Returns:
        tuple: the report, for json; and the number of records that it judges as usable or corrupt.

    Raises:
        RecordError: if the file has no usable image.
    """
    file = opened.file
    faces = read_face_records(file, scan=scan or check, classes=opened.classes)
    report = _summary(opened, faces)
    corrupt = reasons_by_record(faces)
    judged = len(corrupt) + len(faces.keys)
    step = 1 if check else max(1, len(faces.keys) // _SAMPLE)
    sizes, broken = _decoded_sizes(file, faces, step, track if check else nullcontext)
    corrupt.update(broken)
    report['picture_sizes'] = sizes
    report['picture_sizes_of'] = 'all' if check else f'every {step}. picture'
    report['corrupt'] = {str(key): corrupt[key] for key in sorted(corrupt)}
    return report, judged


def report_text(report: dict[str, Any]) -> str:
    """Format a report of `report_records` for the terminal."""
    spread, says = report['pictures_per_identity'], report['property']
    lines = [
        f'{report["file"]}: {report["bytes"] / 2**20:.1f} MiB, {report["records"]} records',
        f'{report["pictures"]} images of {report["identities"]} identities, '
        f'{report["identity_records"]} identity records',
        f'property: {"none" if says is None else "{} classes, {} x {}".format(*says)}',
        f'images per identity: {spread["min"]} to {spread["max"]}, median '
        f'{spread["median"]:g}, mean {spread["mean"]:.1f}',
    ]
    largest = max(report['histogram'].values())
    lines += [
        f'  {name:>13} {count:>8}  {"#" * -(-_BAR * count // largest)}'
        for name, count in report['histogram'].items()
    ]
    sizes = sorted(report['picture_sizes'].items(), key=lambda entry: -entry[1])
    of = report['picture_sizes_of'].replace('picture', 'image')
    shown = ', '.join(f'{name} ({count})' for name, count in sizes[:MOST_LISTED])
    lines.append(f'sizes, of {of}: {shown}')
    lines += [f'note: {note}' for note in report['notes']]
    corrupt = report['corrupt']
    lines += [
        f'corrupt: record {key}: {reason}' for key, reason in list(corrupt.items())[:MOST_LISTED]
    ]
    if len(corrupt) > MOST_LISTED:
        lines.append(f'corrupt: and {len(corrupt) - MOST_LISTED} more; --out writes all of them')
    return '\n'.join(lines)


def reasons_by_record(faces: FaceRecords) -> dict[int, str]:
    """Map the number of each bad record to the reason why it is bad."""
    return {key: reason for reason, keys in faces.bad.items() for key in keys}


def short_reason(error: ValueError, key: int) -> str:
    """Return the message of an error without the file and the record that it names."""
    return str(error).rpartition(f'record {key}: ')[2]


def _summary(opened: OpenedRecords, faces: FaceRecords) -> dict[str, Any]:
    """Summarise the headers."""
    file, classes, size = opened.file, opened.classes, opened.size
    counts = np.bincount(faces.labels, minlength=classes or 0)
    present = counts[counts > 0]
    if not len(present):
        raise RecordError(f'{file.path} has no usable image: {"; ".join(_bad_records(faces))}')
    notes = list(faces.notes)
    if len(present) < len(counts):
        notes.append(f'{len(counts) - len(present)} of {len(counts)} classes have no image')
    if (present == 1).any():
        notes.append(f'{np.sum(present == 1)} identities have one image')
    return {
        'file': str(file.path),
        'bytes': file.size,
        'records': len(file),
        'identity_records': faces.identities,
        'pictures': len(faces.keys),
        'identities': len(present),
        'property': None if classes is None or size is None else [classes, *size],
        'pictures_per_identity': {
            'min': int(present.min()),
            'median': float(np.median(present)),
            'mean': float(present.mean()),
            'max': int(present.max()),
        },
        'histogram': _histogram(present),
        'notes': [*notes, *_bad_records(faces)],
    }


def _histogram(counts: np.ndarray[Any, Any]) -> dict[str, int]:
    """Count the identities by their number of images, in bins of powers of two."""
    edges = [1, *(2**power for power in range(1, int(counts.max()).bit_length() + 1))]
    return {
        str(a) if b == a + 1 else f'{a}-{b - 1}': n
        for a, b, n in zip(
            edges[:-1], edges[1:], np.histogram(counts, edges)[0].tolist(), strict=True
        )
    }


def _bad_records(faces: FaceRecords) -> list[str]:
    """List the number of bad records per reason."""
    return [
        f'{len(keys)} records: {reason} (record {keys[0]} first)'
        for reason, keys in faces.bad.items()
    ]


def _decoded_sizes(
    file: RecordFile, faces: FaceRecords, step: int, track: Any
) -> tuple[dict[str, int], dict[int, str]]:
    """Decode every ``step``-th image; count the sizes, and give the reasons of broken images."""
    sizes: dict[str, int] = {}
    broken: dict[int, str] = {}
    with track(range(0, len(faces.keys), step)) as rows:
        for row in rows:
            key = int(faces.keys[row])
            try:
                image = decode_image(file.read_at(int(faces.offsets[row]), key).data)
            except ValueError as error:
                broken[key] = short_reason(error, key)
                continue
            name = f'{image.shape[0]} x {image.shape[1]}'
            sizes[name] = sizes.get(name, 0) + 1
    return sizes, broken
