r"""Find the anchors of a data set by k-means over the shapes of its boxes, as YOLOv2 does.

    python tools/data/anchors.py data/annotations/instances_train.json --out anchors.json
    python tools/data/anchors.py data/VOC2007 --splits train --input 416 416 --out anchors.json
    python tools/data/anchors.py data/annotations/instances_train.json --input 640 640 \
        --keep-ratio --anchors 9 --config configs/detection/yolo/yolov5_s_300e_coco.py \
        --out anchors.json

The distance is 1 - IoU of boxes laid on one centre. Boxes count as training resizes them: to
``--input`` WIDTH HEIGHT, or into it with ``--keep-ratio``. The mean IoU of all numbers of
``--clusters`` is printed; beside the json file a figure, anchors.png, is written. In a config:
``YOLOV2Head(anchors=...)`` takes ``anchors_cells``, mmdet's ``YOLOAnchorGenerator`` ``anchors_px``,
and so does ``YOLOv5Head(anchors=...)``, by level. The share of boxes with an anchor by the rule of
YOLOv5 (``--ratio``) is printed too, also of the anchors of a ``--config``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mmdet_ext.data.coco.box_sides import read_box_sides
from mmdet_ext.data.reports import LayoutError
from mmdet_ext.utils.files import write_json


def main(argv: list[str] | None = None) -> int:
    """Run the tool; return 0, or 2 for bad input."""
    args = _parse(argv)
    try:
        image = args.out.with_suffix('.png')
        if image == args.out:
            raise LayoutError(f'--out must be a json file, got {args.out}: a figure goes beside it')
        if args.stride < 1:
            raise LayoutError(f'--stride must be at least 1 px, got {args.stride}')
        boxes = read_box_sides(args.annotations, args.splits)
        width, height = args.input
        sides = boxes.resized(width, height, args.keep_ratio)
        # Imported late, so that wrong data is refused at once.
        from mmdet_ext.plots.anchors import draw_anchors
        from mmdet_ext.studies import anchors as study

        fits = study.fit_anchors(sides, [*args.clusters, args.anchors], args.seed)
        print(f'{len(sides)} boxes in {boxes.images} images, resized to {args.input}\n')
        print(study.anchors_table(fits, args.anchors, args.stride))
        recalls = {'these anchors': fits[args.anchors].anchors.tolist()}
        if args.config is not None:
            recalls[str(args.config)] = study.config_anchors(args.config)
        found = {name: study.recall_of(sides, own, args.ratio) for name, own in recalls.items()}
        for name, recall in found.items():
            print(study.recall_line(name, recall, args.ratio))
        for reason, count in boxes.left_out.items():
            print(f'left out: {count} boxes, {reason}')
        mean_ious = {k: fit.mean_iou for k, fit in fits.items()}
        draw_anchors(sides, fits[args.anchors].anchors.numpy(), mean_ious, image)
        write_json(
            args.out,
            {
                **study.anchors_json(fits, args.anchors, args.stride),
                'recall': {name: each._asdict() for name, each in found.items()},
                'ratio': args.ratio,
                'input': args.input,
                'keep_ratio': args.keep_ratio,
                'seed': args.seed,
                'boxes': len(sides),
                'images': boxes.images,
                'sources': boxes.sources,
                'left_out': boxes.left_out,
            },
        )
    except (ValueError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    print(f'\n{args.out}\n{image}')
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'annotations',
        nargs='+',
        type=Path,
        metavar='ANN',
        help='COCO json file, or Pascal VOC folder',
    )
    parser.add_argument(
        '--out', required=True, type=Path, metavar='FILE.json', help='where the anchors go'
    )
    parser.add_argument(
        '--anchors', type=int, default=5, metavar='K', help='number to write (default: %(default)s)'
    )
    parser.add_argument(
        '--clusters',
        nargs='+',
        type=int,
        default=list(range(1, 11)),
        metavar='K',
        help='numbers to compare (default: 1 to 10)',
    )
    parser.add_argument(
        '--input',
        nargs=2,
        type=int,
        default=[416, 416],
        metavar=('WIDTH', 'HEIGHT'),
        help='size of the resized images, px (default: 416 416)',
    )
    parser.add_argument(
        '--keep-ratio', action='store_true', help='images are resized to fit into the size'
    )
    parser.add_argument(
        '--stride', type=int, default=32, metavar='PX', help='side of a cell (default: %(default)s)'
    )
    parser.add_argument(
        '--ratio',
        type=float,
        default=4.0,
        metavar='R',
        help='an anchor fits a box if no side is R times the other (default: %(default)s)',
    )
    parser.add_argument(
        '--config', type=Path, metavar='CONFIG', help='detector whose anchors are checked too'
    )
    parser.add_argument('--seed', type=int, default=0, help='of the first centres')
    parser.add_argument(
        '--splits',
        nargs='+',
        metavar='NAME',
        help='of VOC folders, lists in ImageSets/Main (default: all of them)',
    )
    return parser.parse_args(argv)


if __name__ == '__main__':
    sys.exit(main())
