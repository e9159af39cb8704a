"""Enrol people in a gallery, and search for them in images.

    python tools/face/gallery.py enrol GALLERY FOLDER --model face.onnx
    python tools/face/gallery.py search GALLERY IMAGES --model face.onnx --threshold 0.4
    python tools/face/gallery.py evaluate GALLERY FOLDER --model face.onnx --threshold 0.4
    python tools/face/gallery.py list GALLERY
    python tools/face/gallery.py remove GALLERY NAME [NAME ...]

GALLERY is a folder of its own. FOLDER has one folder per person with the images of faces, aligned
as in training. The recogniser is a file of tools/deploy/export.py (--model), which needs no torch,
or a --config and a --checkpoint. A gallery belongs to one recogniser: --recogniser states its
identifier, which otherwise follows from the contents of these files. --out writes the result as
JSON. An image that cannot be read is named and counted, the others are done, and the exit code is
1. Bad input ends with 2, and the gallery is as it was.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from mmdet_ext.deploy.images import image_files
from mmdet_ext.face.gallery import FaceGallery, GalleryError, recogniser_id
from mmdet_ext.face.gallery.storage import MANIFEST
from mmdet_ext.face.studies.gallery_folders import enrol_folder, evaluate_folder, search_files
from mmdet_ext.face.studies.progress import tracked
from mmdet_ext.utils.files import write_json


def main(argv: list[str] | None = None) -> int:
    """Run the tool; return 0, 1 where an image could not be read, or 2 for bad input."""
    args = _parse(argv)
    try:
        report = args.run(args)
        if args.out is not None:
            write_json(args.out, report)
            print(args.out)
    except (ValueError, OSError, RuntimeError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    unread = report.get('unread', {})
    for file, reason in unread.items():
        print(f'unreadable: {file}: {reason}', file=sys.stderr)
    if unread:
        print(f'{len(unread)} images could not be read', file=sys.stderr)
    return 1 if unread else 0


def enrol(args: argparse.Namespace) -> dict[str, Any]:
    """Enrol a folder of people, and save the gallery."""
    embedder, recogniser = _recogniser(args)
    if (args.gallery / MANIFEST).is_file():
        gallery = FaceGallery.open(args.gallery, recogniser)
        if args.pooling not in (None, gallery.pooling):
            raise GalleryError(f'--pooling {args.pooling}: the gallery has {gallery.pooling!r}')
    else:
        gallery = FaceGallery(recogniser, args.pooling or 'mean')
    if args.index is not None:
        gallery.use_index(args.index)
    report = enrol_folder(gallery, args.folder, embedder, recogniser, args.existing, tracked)
    gallery.save(args.gallery)
    images = sum(report['enrolled'].values())
    print(f'{args.gallery}: {images} images of {len(report["enrolled"])} people enrolled')
    print(f'it has {len(gallery)} people now; recogniser {recogniser}')
    for reason in ('skipped', 'without_image'):
        if report[reason]:
            print(f'{reason.replace("_", " ")}: {", ".join(report[reason])}', file=sys.stderr)
    if report['left_out']:
        print(f'left out: {report["left_out"]}', file=sys.stderr)
    return report


def search(args: argparse.Namespace) -> dict[str, Any]:
    """Print the name of each image."""
    files = image_files(args.images)
    embedder, recogniser = _recogniser(args)
    gallery = FaceGallery.open(args.gallery, recogniser)
    report = search_files(gallery, files, embedder, recogniser, args.k, args.threshold, tracked)
    for file, found in report['found'].items():
        near = ', '.join(f'{each["name"]} {each["cosine"]:+.4f}' for each in found['candidates'])
        print(f'{file}: {found["name"]} ({near})')
    return report


def evaluate(args: argparse.Namespace) -> dict[str, Any]:
    """Print rank-1 and open-set figures of a folder of known and unknown people."""
    embedder, recogniser = _recogniser(args)
    gallery = FaceGallery.open(args.gallery, recogniser)
    report = evaluate_folder(gallery, args.folder, embedder, recogniser, args.threshold, tracked)
    counts = report['counts']
    print(f'{counts["known"]} images of enrolled people, {counts["unknown"]} of others')
    for name, rate in report['rates'].items():
        print(f'{name:10s} {"no such image" if rate is None else f"{rate:.4f}"}')
    return report


def remove(args: argparse.Namespace) -> dict[str, Any]:
    """Remove people, and their numbers from the files."""
    gallery = FaceGallery.open(args.gallery)
    removed = {name: gallery.remove(name) for name in dict.fromkeys(args.names)}
    gallery.compact()
    gallery.save(args.gallery)
    print(f'{len(removed)} people removed, {len(gallery)} are left')
    return {'removed': removed}


def show(args: argparse.Namespace) -> dict[str, Any]:
    """Print the people of a gallery with their numbers of images."""
    gallery = FaceGallery.open(args.gallery)
    people = gallery.images
    for name, count in people.items():
        print(f'{count:6d} {name}')
    print(f'{len(people)} people, pooling {gallery.pooling}, search {gallery.kind}')
    print(f'recogniser {gallery.recogniser}')
    return {'recogniser': gallery.recogniser, 'pooling': gallery.pooling, 'people': people}


def _recogniser(args: argparse.Namespace) -> tuple[Any, str]:
    """Open the recogniser, and return it with its identifier."""
    if (args.model is None) == (args.config is None) or (args.config is None) != (
        args.checkpoint is None
    ):
        raise GalleryError('give --model FILE, or --config FILE and --checkpoint FILE')
    if args.model is not None:
        from mmdet_ext.deploy import FaceRecogniser

        weights = args.model.with_suffix('.bin')
        files = [args.model, *([weights] if weights.is_file() else [])]
        embedder: Any = FaceRecogniser(args.model)
    else:
        from mmdet_ext.engine.configs import read_config
        from mmdet_ext.face.image_embedder import ConfigEmbedder

        files = [args.config, args.checkpoint]
        embedder = ConfigEmbedder(read_config(args.config), args.checkpoint)
    return embedder, args.recogniser or recogniser_id(files)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar='COMMAND')
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument('gallery', type=Path, metavar='GALLERY')
    common.add_argument('--out', type=Path, metavar='FILE.json', help='write the result')
    by = argparse.ArgumentParser(add_help=False)
    by.add_argument('--model', type=Path, help='a file of tools/deploy/export.py')
    by.add_argument('--config', type=Path, help='of the recogniser, instead of --model')
    by.add_argument('--checkpoint', type=Path, help='its weights')
    by.add_argument('--recogniser', metavar='ID', help='default: from the contents of the files')

    def command(name: str, run: Any, text: str, *parents: Any) -> Any:
        own = commands.add_parser(name, parents=[common, *parents], help=text)
        own.set_defaults(run=run)
        return own.add_argument

    add = command('enrol', enrol, 'enrol a folder of people', by)
    add('folder', type=Path, metavar='FOLDER')
    add('--pooling', choices=['mean', 'best'], help='of a new gallery (default: mean)')
    add('--index', choices=['auto', 'flat', 'ivf', 'hnsw'], help='of further searches')
    existing = ['error', 'add', 'skip']
    add('--existing', choices=existing, default='error', help='people enrolled already')
    add = command('search', search, 'search for the people of images', by)
    add('images', type=Path, nargs='+', metavar='IMAGES')
    add('--k', type=int, default=1, help='candidates of each image (%(default)s)')
    add('--threshold', type=float, help='least cosine of a name (default: any)')
    add = command('evaluate', evaluate, 'count right and wrong names', by)
    add('folder', type=Path, metavar='FOLDER')
    add('--threshold', type=float, required=True, help='least cosine of a name')
    add = command('remove', remove, 'remove people')
    add('names', nargs='+', metavar='NAME')
    command('list', show, 'list the people')
    return parser.parse_args(argv)


if __name__ == '__main__':
    sys.exit(main())
