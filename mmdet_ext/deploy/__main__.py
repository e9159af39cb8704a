r"""Detect objects in images, and draw them, without torch.

    python -m mmdet_ext.deploy MODEL IMAGES --out DIR

MODEL is a file of tools/deploy/export.py. IMAGES are files and folders. DIR receives each image
with its detections drawn, and ``detections.json``. An image that cannot be read is named; the
others are done, and the exit code is 1. Of a face recogniser DIR receives ``embeddings.npz``, and
the cosines of all pairs of up to 20 images are printed.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import cv2
import numpy as np

from mmdet_ext.deploy.detector import Detector
from mmdet_ext.deploy.errors import DeployError, ImageError
from mmdet_ext.deploy.face import FaceRecogniser
from mmdet_ext.deploy.images import image_files, read_image
from mmdet_ext.deploy.runtimes import RUNTIMES, open_model
from mmdet_ext.utils.files import whole_file, write_json

MOST_PAIRS = 20


def main(argv: list[str] | None = None) -> int:
    """Run the command; return 0, 1 where an image could not be read, or 2 for bad input."""
    args = _parse(argv)
    try:
        files = image_files(args.images)
        if open_model(args.model, args.runtime, args.threads).info.task == 'face':
            return _faces(args, files)
        return _detect(args, files)
    except (DeployError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2


def _detect(args: argparse.Namespace, files: list[Path]) -> int:
    detector = Detector(args.model, args.runtime, args.threads, args.score)
    names = _unique_names(files)
    found, failed = {}, 0
    started = time.perf_counter()
    for number, (file, name) in enumerate(zip(files, names, strict=True), 1):
        try:
            image = read_image(file)
            (detections,) = detector([image])
        except ImageError as error:
            print(f'error: {error}', file=sys.stderr)
            failed += 1
            continue
        found[str(file)] = detections.to_list()
        _write_image(args.out / name, detections.draw(image))
        _progress(number, len(files))
    if not found:
        print('error: none of the images could be read, and nothing is written', file=sys.stderr)
        return 2
    write_json(args.out / 'detections.json', found)
    seconds = time.perf_counter() - started
    count = sum(map(len, found.values()))
    print(
        f'{len(found)} images, {count} detections, by {detector.runtime.name} in {seconds:.1f} s: '
        f'{args.out}'
    )
    return 1 if failed else 0


def _faces(args: argparse.Namespace, files: list[Path]) -> int:
    recogniser = FaceRecogniser(args.model, args.runtime, args.threads)
    rows, kept, failed = [], [], 0
    for number, file in enumerate(files, 1):
        try:
            rows.append(recogniser.embed([file])[0])
            kept.append(str(file))
        except ImageError as error:
            print(f'error: {error}', file=sys.stderr)
            failed += 1
        _progress(number, len(files))
    if not rows:
        print('error: none of the images could be read, and nothing is written', file=sys.stderr)
        return 2
    embeddings = np.stack(rows)
    with whole_file(args.out / 'embeddings.npz') as part, part.open('wb') as file_:
        np.savez(file_, embeddings=embeddings, files=np.array(kept))
    if len(kept) <= MOST_PAIRS:
        cosines = embeddings @ embeddings.T
        for first in range(len(kept)):
            for second in range(first + 1, len(kept)):
                print(f'{cosines[first, second]:+.4f} {kept[first]} {kept[second]}')
    print(f'{len(kept)} embeddings of {embeddings.shape[1]} numbers: {args.out}/embeddings.npz')
    return 1 if failed else 0


def _unique_names(files: list[Path]) -> list[str]:
    """Return a name for the drawing of each file, distinct where files share theirs."""
    names, taken = [], {'detections.json'}
    for file in files:
        suffix = '.png' if file.suffix.lower() == '.png' else '.jpg'
        name, number = f'{file.stem}{suffix}', 1
        while name in taken:
            number += 1
            name = f'{file.stem}_{number}{suffix}'
        taken.add(name)
        names.append(name)
    return names


def _write_image(path: Path, image: np.ndarray) -> None:
    done, content = cv2.imencode(path.suffix, image)
    if not done:
        raise OSError(f'OpenCV cannot write {path}')
    with whole_file(path) as part:
        part.write_bytes(content.tobytes())


def _progress(number: int, count: int) -> None:
    if sys.stderr.isatty():
        end = '\n' if number == count else ''
        print(f'\r{number} of {count} images', end=end, file=sys.stderr, flush=True)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='python -m mmdet_ext.deploy',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('model', type=Path, metavar='MODEL', help='.onnx, .xml or .param file')
    parser.add_argument('images', type=Path, nargs='+', metavar='IMAGES')
    parser.add_argument('--out', type=Path, required=True, metavar='DIR')
    parser.add_argument('--score', type=float, default=0.3, help='least score (%(default)s)')
    parser.add_argument('--runtime', choices=list(RUNTIMES), help='default: what fits the file')
    parser.add_argument('--threads', type=int, help='default: OMP_NUM_THREADS, or all')
    return parser.parse_args(argv)


if __name__ == '__main__':
    sys.exit(main())
