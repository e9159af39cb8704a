r"""Write a detector or a face recogniser as a file that runs without torch.

    python tools/deploy/export.py CONFIG CHECKPOINT --to onnx --check IMAGES
    python tools/deploy/export.py CONFIG CHECKPOINT --to openvino --int8 IMAGES
    python tools/deploy/export.py CONFIG CHECKPOINT --to ncnn --size 320 320
    python -m mmdet_ext.deploy FILE IMAGES --out DIR

The file holds the network with its decoding, and all that a program needs beside it: classes, size,
means, thresholds. `--check` runs torch and the file on real images and prints the worst difference.
`--fold` merges parallel branches and folds batch norms before the network is traced, and prints
what it did. `--int8` writes a second file, and measures what it costs on the test set of the
config; it is written only if that is at most `--max-drop` points of mAP.

The exit code is 0, 1 where `--check` finds a difference or int8 costs too much, and 2 for bad
input. On bad input nothing is written.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from mmdet_ext.deploy.metadata import SUFFIXES


def main(argv: list[str] | None = None) -> int:
    """Run the tool; return 0, 1 where a check fails, or 2 for bad input."""
    args = _parse(argv)
    # torch and the hosts are imported only once the arguments are read, so that --help is fast.
    from mmdet_ext.deploy.images import image_files
    from mmdet_ext.engine.configs import read_config

    try:
        args.check, args.int8 = image_files(args.check), image_files(args.int8)
        config = read_config(args.config, args.cfg_options)
        if not args.checkpoint.is_file():
            raise FileNotFoundError(f'{args.checkpoint}: there is no such file')
        args.out = _target(args.out or args.checkpoint, args.to)
        is_face = 'bbox_head' not in config.model and 'head' in config.model
        return _face(args, config) if is_face else _detector(args, config)
    except (ValueError, OSError, RuntimeError, KeyError, AttributeError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2


def _target(path: Path, target: str) -> Path:
    """Return the file of a target, whichever of its endings a path has."""
    for suffix in (*SUFFIXES.values(), path.suffix):
        if suffix and path.name.endswith(suffix):
            return path.with_name(path.name.removesuffix(suffix) + SUFFIXES[target])
    return path.with_name(path.name + SUFFIXES[target])


def _detector(args: argparse.Namespace, config: Any) -> int:
    from mmdet_ext.detection.export import ExportOptions, export_detector
    from mmdet_ext.detection.export.write import load_detector

    options = ExportOptions(args.to, args.suppression, args.size, args.batch, args.opset, args.fold)
    if args.int8 and args.to == 'ncnn':
        raise ValueError('--int8 is for --to onnx and --to openvino')
    model, classes = load_detector(config, args.checkpoint)
    info = export_detector(model, config, classes, args.out, options, _sources(args))
    print(f'{args.out}: {len(classes)} classes, input {info.input.size or "of any size"}')
    _print_folded(info)
    done = _check(args, model, config) if args.check else True
    if done and args.int8:
        done = _int8(args, model, config, classes, options)
    return 0 if done else 1


def _check(args: argparse.Namespace, model: Any, config: Any) -> bool:
    from mmdet_ext.deploy import Detector
    from mmdet_ext.detection.export.reference import compare, torch_detections

    detector = Detector(args.out)
    expected = torch_detections(model, config, detector, args.check)
    difference = compare(expected, detector(args.check), detector.info.selection.max_per_image)
    print(f'{detector.runtime.name} against torch, float32:', *difference.lines(), sep='\n')
    print('equal within the tolerances' if difference.equal else 'NOT EQUAL')
    return difference.equal


def _int8(
    args: argparse.Namespace, model: Any, config: Any, classes: tuple[str, ...], options: Any
) -> bool:
    from mmdet_ext.detection.export.quantised import Int8Options, export_int8
    from mmdet_ext.detection.export.write import trace_detector
    from mmdet_ext.export.onnx_file import ExportError

    path = args.out.with_name(f'{args.out.stem}_int8{args.out.suffix}')
    traced = trace_detector(model, config, classes, options, _sources(args))
    try:
        settings = Int8Options(args.int8, args.max_drop, args.vnni)
        export_int8(traced, args.out, path, config, settings)
    except ExportError as error:
        print(f'error: {error}', file=sys.stderr)
        return False
    print(f'{path}: {_megabytes(path):.2f} MB, of float32 {_megabytes(args.out):.2f} MB')
    return True


def _face(args: argparse.Namespace, config: Any) -> int:
    from mmdet_ext.deploy import FaceRecogniser
    from mmdet_ext.face.export import (
        TOLERANCE,
        export_recogniser,
        load_recogniser,
        worst_difference,
    )

    if args.int8:
        raise ValueError('--int8 is for detectors: its cost is measured as mAP')
    if args.size is not None:
        raise ValueError('--size is for detectors: a recogniser has the size of its training')
    model = load_recogniser(config, args.checkpoint)
    sources = _sources(args)
    info = export_recogniser(
        model, config, args.out, args.to, args.batch, args.opset, sources, args.fold
    )
    print(f'{args.out}: embeddings')
    _print_folded(info)
    if not args.check:
        return 0
    worst = worst_difference(model, FaceRecogniser(args.out), args.check)
    equal = worst <= TOLERANCE
    print(f'{len(args.check)} images: embeddings differ by at most {worst:.2e} ({TOLERANCE:g})')
    print('equal within the tolerance' if equal else 'NOT EQUAL')
    return 0 if equal else 1


def _print_folded(info: Any) -> None:
    if 'folded' in info.made_of:
        print(info.made_of['folded'])


def _megabytes(path: Path) -> float:
    weights = path.with_suffix('.bin')
    files = [path, weights] if path.suffix != '.onnx' and weights.is_file() else [path]
    return sum(each.stat().st_size for each in files) / 1e6


def _sources(args: argparse.Namespace) -> dict[str, str]:
    return dict(config=args.config.name, checkpoint=args.checkpoint.name)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('config', type=Path, metavar='CONFIG')
    add('checkpoint', type=Path, metavar='CHECKPOINT')
    add('--to', choices=list(SUFFIXES), required=True, help='runtime that reads the file')
    add('--out', type=Path, metavar='FILE', help='default: beside the checkpoint')
    add('--suppression', choices=['inside', 'outside'], default='outside', help='of the network')
    add('--size', nargs='+', metavar='N', help='height and width of the input, or "dynamic"')
    add('--batch', default='1', metavar='N', help='images per call, or "dynamic" (%(default)s)')
    add('--opset', type=int, default=18, help="version of ONNX's operators (%(default)s)")
    add('--fold', action='store_true', help='fold batch norms, merge branches of RepVGG and others')
    add('--check', type=Path, nargs='+', default=[], metavar='IMAGES', help='compare with torch')
    add('--int8', type=Path, nargs='+', default=[], metavar='IMAGES', help='to calibrate with')
    add('--max-drop', type=float, default=1.0, help='most points of mAP for int8 (%(default)s)')
    add(
        '--vnni',
        choices=['auto', 'yes', 'no'],
        default='auto',
        help='whether the device has VNNI; auto: as this processor',
    )
    add('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help='changes of the config')
    args = parser.parse_args(argv)
    try:
        args.batch = args.batch if args.batch == 'dynamic' else int(args.batch)
        if args.size == ['dynamic']:
            args.size = 'dynamic'
        elif args.size is not None:
            height, width = map(int, args.size)
            args.size = (height, width)
    except ValueError:
        parser.error('--batch takes a number or "dynamic", --size two numbers or "dynamic"')
    return args


if __name__ == '__main__':
    sys.exit(main())
