"""Enrol people by their photographs, and name the faces in others.

    python tools/face/recognize.py enrol GALLERY FOLDER --model face.onnx --detector det.onnx
    python tools/face/recognize.py enrol GALLERY IMAGES --name ann --model face.onnx
    python tools/face/recognize.py recognize GALLERY IMAGES --model face.onnx --out named

GALLERY is a folder of its own, as in tools/face/gallery.py. FOLDER has one folder per person;
with --name, IMAGES are files and folders of one person. The recogniser is a file of
tools/deploy/export.py (--model), an ONNX file of InsightFace (--model and --insightface), or a
--config and a --checkpoint. The detector is such a file (--detector), or any detector of mmdet
(--detector-config and --detector-checkpoint); without one, an image is one face that is cropped
already. Enrol and recognise with the same detector.

The result is printed as JSON; --out receives the drawn images and recognitions.json. An image that
cannot be read, and one to enrol that has no face or several (unless --largest-only), is named with
the reason, the others are done, and the exit code is 1. Bad input ends with 2, and the gallery
is as it was.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from mmdet_ext.deploy.images import image_files
from mmdet_ext.face.recognition import FaceRecognizer
from mmdet_ext.face.studies.progress import tracked
from mmdet_ext.face.studies.recognition_files import (
    enrol_people,
    people_of_folder,
    recognize_files,
)
from mmdet_ext.utils.files import write_json


def main(argv: list[str] | None = None) -> int:
    """Run the tool; return 0, 1 where an image could not be used, or 2 for bad input."""
    args = _parse(argv)
    try:
        report = args.run(args)
        if getattr(args, 'out', None) is not None:
            write_json(args.out / 'recognitions.json', report)
    except (ValueError, OSError, RuntimeError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    print(json.dumps(report, indent=1, ensure_ascii=False))
    bad = report.get('refused') or report.get('unread') or {}
    for file, reason in bad.items():
        print(f'not used: {file}: {reason}', file=sys.stderr)
    return 1 if bad else 0


def enrol(args: argparse.Namespace) -> dict[str, Any]:
    """Enrol people, and save the gallery."""
    if args.name is not None:
        people = {args.name: image_files(args.images)}
    elif len(args.images) == 1:
        people = people_of_folder(args.images[0])
    else:
        raise ValueError('give one FOLDER with one folder per person, or --name and IMAGES')
    recognizer = _recognizer(args)
    report = enrol_people(recognizer, people, args.existing, tracked)
    if report['enrolled']:
        recognizer.gallery.save(args.gallery)
    return report | {'recogniser': recognizer.embedder.recogniser}


def recognize(args: argparse.Namespace) -> dict[str, Any]:
    """Name the faces of images."""
    files = image_files(args.images)
    recognizer = _recognizer(args, threshold=args.threshold, top_k=args.k)
    if not len(recognizer.gallery):
        raise ValueError(f'{args.gallery}: nobody is enrolled; enrol people first')
    return recognize_files(recognizer, files, args.out, tracked)


def _recognizer(args: argparse.Namespace, **options: Any) -> FaceRecognizer:
    insightface = None
    if args.insightface is not None:
        mean, std = args.insightface
        insightface = {'mean': mean, 'std': std}
    return FaceRecognizer.from_files(
        args.model,
        args.gallery,
        config=args.config,
        checkpoint=args.checkpoint,
        detector_config=args.detector_config,
        detector_checkpoint=args.detector_checkpoint,
        detector=args.detector,
        insightface=insightface,
        face_classes=args.face_classes,
        recogniser=args.recogniser,
        min_score=args.min_score,
        largest_only=args.largest_only,
        margin=args.margin,
        **options,
    )


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar='COMMAND')
    common = argparse.ArgumentParser(add_help=False)
    add = common.add_argument
    add('gallery', type=Path, metavar='GALLERY')
    add('images', type=Path, nargs='+', metavar='IMAGES')
    add('--model', type=Path, help='a file of tools/deploy/export.py, or of InsightFace')
    add(
        '--insightface',
        type=float,
        nargs=2,
        metavar=('MEAN', 'STD'),
        help='--model is an ONNX file of InsightFace that takes (RGB - MEAN) / STD',
    )
    add('--config', type=Path, help='of the recogniser, instead of --model')
    add('--checkpoint', type=Path, help='its weights')
    add('--recogniser', metavar='ID', help='default: from the contents of the files')
    add('--detector', type=Path, help='a file of tools/deploy/export.py')
    add('--detector-config', type=Path, help='of mmdet, instead of --detector')
    add('--detector-checkpoint', type=Path, help='its weights')
    add('--face-classes', nargs='+', metavar='CLASS', help='of the detector; default: all')
    add('--min-score', type=float, default=0.5, help='least score of a face (%(default)s)')
    add('--margin', type=float, default=0.0, help='of a crop without landmarks (%(default)s)')
    add('--largest-only', action='store_true', help='only the largest face of an image counts')

    one = commands.add_parser('enrol', parents=[common], help='enrol people')
    one.set_defaults(run=enrol)
    one.add_argument('--name', help='of the person whom all IMAGES show')
    one.add_argument(
        '--existing', choices=['error', 'add', 'skip'], default='error', help='people enrolled'
    )
    one = commands.add_parser('recognize', parents=[common], help='name the faces of images')
    one.set_defaults(run=recognize)
    one.add_argument('--threshold', type=float, default=0.4, help='least cosine (%(default)s)')
    one.add_argument('--k', type=int, default=5, help='candidates of each face (%(default)s)')
    one.add_argument('--out', type=Path, metavar='DIR', help='drawn images, recognitions.json')
    return parser.parse_args(argv)


if __name__ == '__main__':
    sys.exit(main())
