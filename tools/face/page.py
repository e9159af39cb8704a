"""Serve a web page to enrol people by webcam or files, and to search for their faces.

    pip install 'mmdet-ext[page]'
    python tools/face/page.py GALLERY --model face.onnx
    python tools/face/page.py GALLERY --model face.onnx --detector detector.onnx --threshold 0.5
    python tools/face/page.py GALLERY --config face.py --checkpoint face.pth --port 8000

GALLERY is the folder that tools/face/gallery.py reads too; it is made by the first enrolment. The
recogniser is a file of tools/deploy/export.py (--model), or a --config and a --checkpoint. Without
a detector each image is taken for one face, cropped and aligned. The page serves this machine alone
unless --host says otherwise, keeps no image, and ends with Ctrl+C. Bad input ends with 2.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mmdet_ext.face.page import FaceDesk, Limits
from mmdet_ext.face.recognition import FaceRecognizer


def main(argv: list[str] | None = None) -> int:
    """Serve until interrupted; return 0, or 2 for bad input."""
    args = _parse(argv)
    try:
        from mmdet_ext.face.page.server import PageServer, is_local
    except ImportError as error:
        print(
            f"error: {error.name} is not installed: pip install 'mmdet-ext[page]'", file=sys.stderr
        )
        return 2
    try:
        limits = Limits(int(args.max_mb * 2**20), args.max_pixels)
        desk = FaceDesk(_recognizer(args), args.gallery, limits)
        server = PageServer(desk, args.host, args.port, args.name)
    except (ValueError, OSError, OverflowError, RuntimeError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    if not is_local(args.host):
        print(
            f'warning: {args.host} can be reached by others, who can enrol, list and delete people '
            'without a password, over a connection that is not encrypted',
            file=sys.stderr,
        )
    print(f'{server.url} (Ctrl+C ends it)', flush=True)
    try:
        server.run()
    except KeyboardInterrupt:
        pass
    return 0


def _recognizer(args: argparse.Namespace) -> FaceRecognizer:
    return FaceRecognizer.from_files(
        args.model,
        args.gallery,
        args.config,
        args.checkpoint,
        args.detector_config,
        args.detector_checkpoint,
        args.detector,
        recogniser=args.recogniser,
        threshold=args.threshold,
    )


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, default = parser.add_argument, Limits()
    add('gallery', type=Path, metavar='GALLERY')
    add('--model', type=Path, help='a file of tools/deploy/export.py')
    add('--config', type=Path, help='of the recogniser, instead of --model')
    add('--checkpoint', type=Path, help='its weights')
    add('--recogniser', metavar='ID', help='default: from the contents of the files')
    add('--detector', type=Path, help='a detector of tools/deploy/export.py')
    add('--detector-config', type=Path, help='of any detector of mmdet, instead of --detector')
    add('--detector-checkpoint', type=Path, help='its weights')
    add('--threshold', type=float, default=0.4, help='least cosine of a name (%(default)s)')
    add('--host', default='127.0.0.1', help='address to serve (%(default)s: this machine alone)')
    add('--name', action='append', default=[], help='of a proxy before this page; can be repeated')
    add('--port', type=int, default=7860, help='0 for any free one (%(default)s)')
    megabytes = default.max_bytes / 2**20
    add('--max-mb', type=float, default=megabytes, help='of an image, in MB (%(default)g)')
    add('--max-pixels', type=int, default=default.max_pixels, help='of an image (%(default)s)')
    return parser.parse_args(argv)


if __name__ == '__main__':
    sys.exit(main())
