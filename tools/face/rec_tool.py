"""Look into InsightFace's train.rec, take images out of one, or make one of your own folder.

    python tools/face/rec_tool.py inspect data/ms1m-retinaface-t1
    python tools/face/rec_tool.py inspect data/ms1m-retinaface-t1 --check --out report.json
    python tools/face/rec_tool.py extract data/ms1m-retinaface-t1 faces --identities 0 1 2
    python tools/face/rec_tool.py write faces data/mine --size 112 112

A path may be the folder of train.rec or the file itself. `inspect` reads no image; with --check
it decodes all of them, lists the corrupt ones and ends with 2 if there are any. `extract` writes
all that can be read, names what cannot, and then ends with 2. `write` takes the identities that
FaceFolderDataset finds in the folder, in its order, and stores JPEGs of the right size byte for
byte.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mmdet_ext.data.face.folder import list_faces
from mmdet_ext.data.face.records import (
    FaceRecords,
    RecordError,
    RecordFile,
    read_face_records,
    read_property,
    write_face_records,
)
from mmdet_ext.data.images import decode_image
from mmdet_ext.utils.files import whole_file, write_json

_ENDINGS = (
    (b'\xff\xd8', '.jpg'),
    (b'\x89PNG', '.png'),
    (b'BM', '.bmp'),
    (b'P5', '.pgm'),
    (b'P6', '.ppm'),
    (b'RIFF', '.webp'),
    (b'GIF8', '.gif'),
    (b'II*\0', '.tif'),
    (b'MM\0*', '.tif'),
)
_SAMPLE = 50
_LISTED = 20
_BAR = 40
_STEPS = 100


class ToolError(ValueError):
    """Input that the tool cannot use."""


def main(argv: list[str] | None = None) -> int:
    """Run the tool; returns 0, or 2 for bad input."""
    args = _parse(argv)
    try:
        args.run(args)
    except (ValueError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    return 0


def inspect(args: argparse.Namespace) -> None:
    """Say what a file has; with --check decode all of it."""
    file, classes, size = _opened(args)
    faces = read_face_records(file, scan=args.scan or args.check, classes=classes)
    report = _summary(file, faces, classes, size)
    corrupt = _by_record(faces)
    # All images, or some that lie evenly in the file.
    step = 1 if args.check else max(1, len(faces.keys) // _SAMPLE)
    sizes, broken = _decoded_sizes(file, faces, step, show=args.check)
    corrupt.update(broken)
    report['picture_sizes'] = sizes
    report['picture_sizes_of'] = 'all' if args.check else f'every {step}. picture'
    report['corrupt'] = {str(key): corrupt[key] for key in sorted(corrupt)}
    _print_report(report)
    if args.write_idx:
        file.write_index(args.write_idx)
        print(args.write_idx)
    if args.out:
        write_json(args.out, report)
        print(args.out)
    if corrupt and args.check:
        raise ToolError(
            f'{len(corrupt)} of {len(corrupt) + len(faces.keys) - len(broken)} records are corrupt'
        )


def extract(args: argparse.Namespace) -> None:
    """Write images, byte for byte, to a folder an identity; pass over what is no image."""
    file, classes, _ = _opened(args)
    faces = read_face_records(file, scan=args.scan, classes=classes)
    _warn(faces.notes)
    bad = _by_record(faces)
    chosen = np.arange(len(faces.keys))
    if args.identities:
        absent = sorted(set(args.identities) - set(faces.labels.tolist()))
        if absent:
            raise ToolError(f'identities {absent[:_LISTED]} have no image in {file.path}')
        chosen = chosen[np.isin(faces.labels, args.identities)]
    chosen = chosen[: args.limit]
    digits = len(str(int(faces.labels.max()))) if len(faces.labels) else 1
    written: list[int] = []
    with _tracked(chosen.tolist()) as rows:
        for row in rows:
            key, label = int(faces.keys[row]), int(faces.labels[row])
            try:
                data = file.read_at(int(faces.offsets[row]), key).data
                decode_image(data)
            except ValueError as error:
                bad[key] = _reason(error, key)
                continue
            ending = next((end for start, end in _ENDINGS if data.startswith(start)), '.img')
            with whole_file(args.folder / f'{label:0{digits}d}' / f'{key:08d}{ending}') as part:
                part.write_bytes(data)
            written.append(label)
    print(f'{len(written)} images of {len(set(written))} identities in {args.folder}')
    if bad:
        shown = '; '.join(f'record {key}: {bad[key]}' for key in sorted(bad)[:_LISTED])
        more = f'; and {len(bad) - _LISTED} more, see `inspect --check`'
        raise ToolError(
            f'{len(bad)} records are bad and were not extracted: {shown}'
            + more * (len(bad) > _LISTED)
        )


def write(args: argparse.Namespace) -> None:
    """Make train.rec, train.idx and property of a folder with a folder an identity."""
    if not args.folder.is_dir():
        raise FileNotFoundError(f'folder {str(args.folder)!r} is not there')
    if min(args.size) < 1 or not 1 <= args.quality <= 100:
        raise ToolError(
            f'--size must be above 0 and --quality in 1..100, got {args.size} and {args.quality}'
        )
    rec = args.out / 'train.rec'
    if rec.exists() and not args.force:
        raise ToolError(f'{rec} is there already: give another folder, or --force')
    faces = list_faces(args.folder, bad_images='drop')
    if faces.left_out or faces.oddities:
        _warn([str(faces)])
    if faces.bad and args.bad_pictures == 'error':
        raise ToolError(
            f'{faces.bad} images cannot be used. Mend them, or give --bad-pictures drop'
        )
    paths: dict[str, list[Path]] = {name: [] for name in faces.classes}
    for path, label in zip(faces.paths, faces.labels, strict=True):
        paths[faces.classes[label]].append(Path(path))
    encoder = _Encoder(tuple(args.size), args.quality, args.bad_pictures)
    with _tracked(list(paths.items())) as identities:
        counts = write_face_records(
            (encoder.identity(*identity) for identity in identities), rec, tuple(args.size)
        )
    names = [name for name in faces.classes if name not in encoder.empty]
    with whole_file(args.out / 'identities.txt') as part:
        part.write_text(''.join(f'{name}\n' for name in names), encoding='utf-8')
    _warn(encoder.notes())
    print(
        f'{sum(counts)} images of {len(counts)} identities ({encoder.kept} byte for byte, '
        f'{encoder.encoded} encoded, {encoder.resized} of them resized)\n{rec}'
    )


class _Encoder:
    """Makes the images of an identity's folder what is stored, and counts what it does."""

    def __init__(self, size: tuple[int, int], quality: int, bad_pictures: str) -> None:
        self.size = size
        self.quality, self.bad_pictures = quality, bad_pictures
        self.kept = self.encoded = self.resized = self.stretched = 0
        self.bad: list[str] = []
        self.empty: set[str] = set()

    def identity(self, name: str, paths: list[Path]) -> list[bytes]:
        """The encoded images of an identity."""
        stored = [data for path in paths if (data := self._image(path)) is not None]
        if not stored:
            self.empty.add(name)
        return stored

    def notes(self) -> list[str]:
        """What a user should hear of, beyond what the list of the images says."""
        listed = ', '.join(sorted(self.empty)[:_LISTED])
        return [
            text
            for count, text in (
                (len(self.bad), f'dropped, cannot be decoded: {"; ".join(self.bad[:_LISTED])}'),
                (len(self.empty), f'folders without a usable image, without a label: {listed}'),
                (self.stretched, 'images of another aspect ratio, stretched'),
            )
            if count
            for text in [f'{count} {text}']
        ]

    def _image(self, path: Path) -> bytes | None:
        try:
            data = path.read_bytes()
            image = decode_image(data)
        except ValueError as error:
            if self.bad_pictures == 'error':
                raise ToolError(f'{path}: {error}. Mend it, or give --bad-pictures drop') from error
            self.bad.append(f'{path}: {error}')
            return None
        height, width = image.shape[:2]
        if (height, width) == self.size and data.startswith(b'\xff\xd8'):
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


def _opened(args: argparse.Namespace) -> tuple[RecordFile, int | None, tuple[int, int] | None]:
    """The file, and what its ``property`` says: number of classes, and height and width."""
    path = args.rec / 'train.rec' if args.rec.is_dir() else args.rec
    file = RecordFile(path, args.idx)
    beside = path.with_name('property')
    if not beside.is_file():
        file.notes.append('no property file beside it')
        return file, None, None
    classes, height, width = read_property(beside)
    return file, classes, (height, width)


def _summary(
    file: RecordFile, faces: FaceRecords, classes: int | None, size: tuple[int, int] | None
) -> dict[str, Any]:
    """What the headers tell."""
    counts = np.bincount(faces.labels, minlength=classes or 0)
    present = counts[counts > 0]
    if not len(present):
        raise RecordError(f'{file.path} has no usable image: {"; ".join(_reasons(faces))}')
    notes = list(faces.notes)
    if len(present) < len(counts):
        notes.append(f'{len(counts) - len(present)} of {len(counts)} classes have no image')
    if (present == 1).any():
        notes.append(f'{np.sum(present == 1)} identities have one image')
    edges = [1, *(2**power for power in range(1, int(present.max()).bit_length() + 1))]
    histogram = np.histogram(present, edges)[0].tolist()
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
        'histogram': {
            str(a) if b == a + 1 else f'{a}-{b - 1}': n
            for a, b, n in zip(edges[:-1], edges[1:], histogram, strict=True)
        },
        'notes': [*notes, *_reasons(faces)],
    }


def _decoded_sizes(
    file: RecordFile, faces: FaceRecords, step: int, *, show: bool
) -> tuple[dict[str, int], dict[int, str]]:
    """Sizes of every ``step``-th image, 'height x width' -> how many; and the broken ones."""
    sizes: dict[str, int] = {}
    broken: dict[int, str] = {}
    rows = range(0, len(faces.keys), step)
    with _tracked(rows) if show else nullcontext(rows) as looked_at:
        for row in looked_at:
            key = int(faces.keys[row])
            try:
                image = decode_image(file.read_at(int(faces.offsets[row]), key).data)
            except ValueError as error:
                broken[key] = _reason(error, key)
                continue
            name = f'{image.shape[0]} x {image.shape[1]}'
            sizes[name] = sizes.get(name, 0) + 1
    return sizes, broken


def _print_report(report: dict[str, Any]) -> None:
    spread = report['pictures_per_identity']
    says = report['property']
    print(
        f'{report["file"]}: {report["bytes"] / 2**20:.1f} MiB, {report["records"]} records\n'
        f'{report["pictures"]} images of {report["identities"]} identities, '
        f'{report["identity_records"]} identity records\n'
        f'property: {"none" if says is None else "{} classes, {} x {}".format(*says)}\n'
        f'images an identity: {spread["min"]} to {spread["max"]}, median '
        f'{spread["median"]:g}, mean {spread["mean"]:.1f}'
    )
    largest = max(report['histogram'].values())
    for name, count in report['histogram'].items():
        print(f'  {name:>13} {count:>8}  {"#" * -(-_BAR * count // largest)}')
    sizes = sorted(report['picture_sizes'].items(), key=lambda entry: -entry[1])
    print(
        f'sizes, of {report["picture_sizes_of"]}: '
        + ', '.join(f'{name} ({count})' for name, count in sizes[:_LISTED])
    )
    for note in report['notes']:
        print(f'note: {note}')
    corrupt = report['corrupt']
    for key, reason in list(corrupt.items())[:_LISTED]:
        print(f'corrupt: record {key}: {reason}')
    if len(corrupt) > _LISTED:
        print(f'corrupt: and {len(corrupt) - _LISTED} more; --out writes all of them')


def _reason(error: ValueError, key: int) -> str:
    """An error without the file and the record that it names."""
    return str(error).rpartition(f'record {key}: ')[2]


def _by_record(faces: FaceRecords) -> dict[int, str]:
    """Why records are bad, by their keys."""
    return {key: reason for reason, keys in faces.bad.items() for key in keys}


def _reasons(faces: FaceRecords) -> list[str]:
    return [
        f'{len(keys)} records: {reason} (record {keys[0]} first)'
        for reason, keys in faces.bad.items()
    ]


def _warn(notes: Iterable[str]) -> None:
    for note in notes:
        print(f'warning: {note}', file=sys.stderr)


@contextmanager
def _tracked(tasks: Any) -> Iterator[Iterator[Any]]:
    """The tasks one by one, with a progress bar on stderr that moves at most 100 times.

    Its line ends where the context does, so that an error begins on one of its own.
    """
    from mmengine.utils import track_iter_progress

    step = -(-len(tasks) // _STEPS) or 1
    parts = [tasks[start : start + step] for start in range(0, len(tasks), step)]
    tracked = track_iter_progress((parts, len(parts)), file=sys.stderr) if parts else ()
    try:
        yield (task for part in tracked for task in part)
    finally:
        print(file=sys.stderr)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar='COMMAND')
    reading = argparse.ArgumentParser(add_help=False)
    reading.add_argument(
        'rec', type=Path, metavar='REC', help='a .rec file, or the folder of train.rec'
    )
    reading.add_argument('--idx', type=Path, help='its index (default: beside it)')
    reading.add_argument(
        '--scan', action='store_true', help='read the label in the header of each image'
    )

    look = commands.add_parser('inspect', parents=[reading], help='say what a file has')
    look.add_argument('--check', action='store_true', help='decode every image')
    look.add_argument('--out', type=Path, metavar='FILE.json', help='write the report')
    look.add_argument(
        '--write-idx',
        type=Path,
        metavar='FILE.idx',
        help='write the index of the records that were found',
    )
    look.set_defaults(run=inspect)

    take = commands.add_parser('extract', parents=[reading], help='write images to folders')
    take.add_argument('folder', type=Path, help='where they go, a folder an identity')
    take.add_argument('--limit', type=_count, metavar='N', help='at most so many images')
    take.add_argument('--identities', type=int, nargs='+', metavar='LABEL', help='these alone')
    take.set_defaults(run=extract)

    make = commands.add_parser('write', help='make a train.rec of a folder an identity')
    make.add_argument('folder', type=Path, help='folder with a folder an identity')
    make.add_argument('out', type=Path, help='where train.rec, train.idx and property go')
    make.add_argument(
        '--size',
        type=int,
        nargs=2,
        default=[112, 112],
        metavar=('HEIGHT', 'WIDTH'),
        help='of the stored images (default: 112 112)',
    )
    make.add_argument('--quality', type=int, default=95, help='of JPEGs made (default: 95)')
    make.add_argument(
        '--bad-pictures',
        choices=('error', 'drop'),
        default='error',
        help='what to do with images that cannot be read (default: error)',
    )
    make.add_argument('--force', action='store_true', help='replace a train.rec that is there')
    make.set_defaults(run=write)
    return parser.parse_args(argv)


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f'must be at least 1, got {number}')
    return number


if __name__ == '__main__':
    sys.exit(main())
