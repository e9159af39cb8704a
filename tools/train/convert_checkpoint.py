r"""Convert the weights of other projects to the names of this one.

    python tools/train/convert_checkpoint.py insightface backbone.pth iresnet50.pth
    python tools/train/convert_checkpoint.py insightface checkpoint_gpu_0.pt iresnet50.pth \
        --centres checkpoint_gpu_0.pt checkpoint_gpu_1.pt
    python tools/train/convert_checkpoint.py darknet \
        configs/detection/yolo/yolov4_csp_darknet53_608_coco.py yolov4.weights yolov4.pth
    python tools/train/convert_checkpoint.py yolov5 yolov5s.pt yolov5_s.pth
    python tools/train/convert_checkpoint.py nanodet nanodet-plus-m_320.ckpt nanodet_plus_m.pth

The result is a checkpoint in MMEngine's form, which `load_from=FILE`, `mim test CONFIG
--checkpoint FILE`, and `init_cfg=dict(type='Pretrained', checkpoint=FILE, prefix='backbone.')` of
the backbone read. Every key and shape is checked before anything is written.

InsightFace feeds its networks RGB as (x - 127.5) / 127.5: with its weights, the config must say
`data_preprocessor=dict(type='mmdet_ext.FaceDataPreprocessor', std=127.5)`. Darknet and YOLOv5 feed
RGB as x / 255. A file of YOLOv5 holds objects: none of its code is run. A checkpoint of
NanoDet-Plus holds its weights twice: the averaged ones are taken, by which it is validated.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from mmdet_ext.face.backbones.iresnet import STAGE_BLOCKS
from mmdet_ext.face.insightface import convert_insightface


def main(argv: list[str] | None = None) -> int:
    """Run the tool; return 0, or 2 for bad input."""
    args = _parse(argv)
    try:
        print(args.convert(args))
    except (ValueError, OSError, RuntimeError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    return 0


def _insightface(args: argparse.Namespace) -> str:
    return convert_insightface(
        args.source,
        args.out,
        depth=None if args.depth == 'auto' else int(args.depth),
        input_size=args.input_size,
        prefix=args.prefix,
        centres=args.centres,
    ).summary()


def _darknet(args: argparse.Namespace) -> str:
    # Imported here, as faces need no mmdet.
    from mmdet_ext.detection.darknet import convert_darknet

    return convert_darknet(args.config, args.source, args.out)


def _yolov5(args: argparse.Namespace) -> str:
    from mmdet_ext.detection.yolov5 import convert_yolov5

    return convert_yolov5(args.source, args.out)


def _nanodet(args: argparse.Namespace) -> str:
    from mmdet_ext.detection.nanodet import convert_nanodet

    return convert_nanodet(args.source, args.out, args.weights)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sources = parser.add_subparsers(required=True, metavar='SOURCE')
    _add_insightface(sources)
    darknet = sources.add_parser('darknet', help='YOLOv4, from a file of weights of Darknet')
    darknet.add_argument(
        'config', type=Path, metavar='CONFIG', help='config of the same network, with its classes'
    )
    darknet.add_argument('source', type=Path, metavar='IN.weights', help='the file of weights')
    darknet.add_argument('out', type=Path, metavar='OUT.pth', help='where the checkpoint goes')
    darknet.set_defaults(convert=_darknet)
    yolov5 = sources.add_parser(
        'yolov5', help='YOLOv5 (layout v6), from its own files, from MMYOLO or from a state dict'
    )
    yolov5.add_argument('source', type=Path, metavar='IN.pt', help='the file of weights')
    yolov5.add_argument('out', type=Path, metavar='OUT.pth', help='where the checkpoint goes')
    yolov5.set_defaults(convert=_yolov5)
    nanodet = sources.add_parser('nanodet', help="NanoDet-Plus, from its authors' checkpoints")
    nanodet.add_argument('source', type=Path, metavar='IN.ckpt', help='checkpoint or weights alone')
    nanodet.add_argument('out', type=Path, metavar='OUT.pth', help='where the checkpoint goes')
    nanodet.add_argument(
        '--weights',
        default='averaged',
        choices=['averaged', 'trained'],
        help='which of the two in a checkpoint; in model_last.ckpt the average is that of the last '
        'validation (default: %(default)s)',
    )
    nanodet.set_defaults(convert=_nanodet)
    return parser.parse_args(argv)


def _add_insightface(sources: Any) -> None:
    """Add the command of InsightFace's networks, which has the most options."""
    parser = sources.add_parser(
        'insightface', help="IResNet-18, -34, -50 or -100 of InsightFace's arcface_torch"
    )
    parser.add_argument(
        'source',
        type=Path,
        metavar='IN.pth',
        help='state dict of the network, or a training state that holds it',
    )
    parser.add_argument('out', type=Path, metavar='OUT.pth', help='where the checkpoint goes')
    parser.add_argument(
        '--depth',
        default='auto',
        choices=['auto', *map(str, STAGE_BLOCKS)],
        help='of the network (default: inferred from the names)',
    )
    parser.add_argument(
        '--input-size',
        nargs=2,
        type=int,
        metavar=('HEIGHT', 'WIDTH'),
        help='of its images, px (default: the largest square that fits)',
    )
    parser.add_argument(
        '--prefix',
        default='backbone.',
        metavar='TEXT',
        help='before each name (default: %(default)s, as in an ImageClassifier)',
    )
    parser.add_argument(
        '--centres',
        nargs='+',
        type=Path,
        default=[],
        metavar='FILE',
        help='class centres, as head.weight: the files of all ranks, in the order of the ranks',
    )
    parser.set_defaults(convert=_insightface)


if __name__ == '__main__':
    sys.exit(main())
