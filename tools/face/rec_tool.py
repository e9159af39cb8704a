"""Inspect InsightFace's train.rec, extract images from one, or write one from your own folder.

    python tools/face/rec_tool.py inspect data/ms1m-retinaface-t1
    python tools/face/rec_tool.py inspect data/ms1m-retinaface-t1 --check --out report.json
    python tools/face/rec_tool.py extract data/ms1m-retinaface-t1 faces --identities 0 1 2
    python tools/face/rec_tool.py write faces data/mine --size 112 112

A path may be the folder of train.rec or the file itself. `inspect` decodes a few images; with
--check it decodes all of them, lists the corrupt ones and ends with 2 if there are any. `extract`
writes all images that can be read, names the others, and then ends with 2. `write` takes the
identities that FaceFolderDataset finds in the folder, in its order, and stores JPEGs of the right
size byte for byte.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from mmdet_ext.data.face.record_images import bad_records_text, extract_images, write_folder
from mmdet_ext.data.face.record_report import open_records, report_records, report_text
from mmdet_ext.data.face.records import read_face_records
from mmdet_ext.face.studies.progress import tracked
from mmdet_ext.utils.files import write_json


def main(argv: list[str] | None = None) -> int:
    """Run the tool; return 0, or 2 for bad input."""
    args = _parse(argv)
    try:
        args.run(args)
    except (ValueError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    return 0


def inspect(args: argparse.Namespace) -> None:
    """Print the report of a file; with --check, raise if a record is corrupt."""
    opened = open_records(args.rec, args.idx)
    report, judged = report_records(opened, scan=args.scan, check=args.check, track=tracked)
    print(report_text(report))
    if args.write_idx:
        opened.file.write_index(args.write_idx)
        print(args.write_idx)
    if args.out:
        write_json(args.out, report)
        print(args.out)
    if report['corrupt'] and args.check:
        raise ValueError(f'{len(report["corrupt"])} of {judged} records are corrupt')


def extract(args: argparse.Namespace) -> None:
    """Write images to a folder per identity; raise if a record is bad."""
    opened = open_records(args.rec, args.idx)
    faces = read_face_records(opened.file, scan=args.scan, classes=opened.classes)
    for note in faces.notes:
        _warn(note)
    written, bad = extract_images(
        opened, faces, args.folder, identities=args.identities, limit=args.limit, track=tracked
    )
    print(f'{len(written)} images of {len(set(written))} identities in {args.folder}')
    if bad:
        raise ValueError(bad_records_text(bad))


def write(args: argparse.Namespace) -> None:
    """Write train.rec, train.idx and property from a folder of identities."""
    summary = write_folder(
        args.folder,
        args.out,
        size=tuple(args.size),
        quality=args.quality,
        bad_images=args.bad_pictures,
        force=args.force,
        warn=_warn,
        track=tracked,
    )
    print(summary)


def _warn(note: str) -> None:
    print(f'warning: {note}', file=sys.stderr)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar='COMMAND')
    reading = argparse.ArgumentParser(add_help=False)
    add = reading.add_argument
    add('rec', type=Path, metavar='REC', help='a .rec file, or the folder of train.rec')
    add('--idx', type=Path, help='its index (default: beside it)')
    add('--scan', action='store_true', help='read the label in the header of each image')

    look = commands.add_parser('inspect', parents=[reading], help='report the content of a file')
    look.set_defaults(run=inspect)
    add = look.add_argument
    add('--check', action='store_true', help='decode every image')
    add('--out', type=Path, metavar='FILE.json', help='write the report')
    add('--write-idx', type=Path, metavar='FILE.idx', help='write the index of the records found')

    take = commands.add_parser('extract', parents=[reading], help='write images to folders')
    take.set_defaults(run=extract)
    add = take.add_argument
    add('folder', type=Path, help='target folder, with one folder per identity')
    add('--limit', type=_count, metavar='N', help='largest number of images')
    add('--identities', type=int, nargs='+', metavar='LABEL', help='only these identities')

    make = commands.add_parser('write', help='write a train.rec from a folder of identities')
    make.set_defaults(run=write)
    add = make.add_argument
    add('folder', type=Path, help='folder with one folder per identity')
    add('out', type=Path, help='target folder of train.rec, train.idx and property')
    size: dict[str, Any] = dict(type=int, nargs=2, default=[112, 112], metavar=('HEIGHT', 'WIDTH'))
    add('--size', help='of the stored images (default: 112 112)', **size)
    add('--quality', type=int, default=95, help='of encoded JPEGs (default: 95)')
    bad: dict[str, Any] = dict(choices=('error', 'drop'), default='error')
    add('--bad-pictures', help='for images that cannot be read (default: error)', **bad)
    add('--force', action='store_true', help='replace an existing train.rec')
    return parser.parse_args(argv)


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f'must be at least 1, got {number}')
    return number


if __name__ == '__main__':
    sys.exit(main())
