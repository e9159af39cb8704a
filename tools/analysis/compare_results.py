"""Compare two results of a test on the same images: is the difference of AP more than noise?

    python tools/analysis/compare_results.py FIRST.pkl SECOND.pkl CONFIG --out DIR
    python tools/analysis/compare_results.py A.pkl B.pkl ANNOTATIONS.json --images FOLDER --out DIR

The pickles are what ``mim test mmdet CONFIG --checkpoint X.pth --out FIRST.pkl`` writes.

Prints the difference of AP, AP50 and AP75 per class and in the mean, with an interval from a paired
bootstrap over the images. The difference is noise where that holds 0. Writes comparison.json,
differences.png, and worst_images.png with the images in which the second result gains most errors,
both results side by side at the threshold of their best F1. The interval covers the choice of the
images alone; other seeds of the training vary, too (tools/train/compare_configs.py).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from mmdet.utils import register_all_modules

from mmdet_ext.analysis.detection.comparison import (
    COCO_IOU,
    compare_results,
    comparison_table,
    image_changes,
)
from mmdet_ext.analysis.detection.examples import side_by_side
from mmdet_ext.detection.metrics.sources import detections_of_file, ground_truth
from mmdet_ext.plots.detection.comparison import draw_differences
from mmdet_ext.plots.detection.sheets import draw_sheet
from mmdet_ext.utils.files import write_json


def main(argv: list[str] | None = None) -> int:
    """Print and draw the comparison; return 0, or 2 for wrong input."""
    args = _parse(argv)
    register_all_modules()
    paths = (args.first, args.second)
    try:
        data = ground_truth(args.truth, args.classes, args.images, args.cfg_options)
        first, second = (detections_of_file(path, data) for path in paths)
        names = _names(paths)
        report = compare_results(data, first, second, args.iou, args.resamples, seed=args.seed)
        print(comparison_table(report, (str(args.first), str(args.second))))
        used, errors = image_changes(data, first, second)
        gain = errors[:, 1] - errors[:, 0]
        print(
            f'errors at scores {used[0]:.3f} and {used[1]:.3f}: {errors[:, 0].sum():,} and '
            f'{errors[:, 1].sum():,}; {int((gain > 0).sum()):,} images got worse and '
            f'{int((gain < 0).sum()):,} better'
        )
        order = np.argsort(-gain, kind='stable')
        content = {
            'first': str(args.first),
            'second': str(args.second),
            'images': len(data.image_ids),
            'resamples': args.resamples,
            'figures': report,
            'score_thresholds': list(used),
            'worst_images': [
                {'image_id': data.image_ids[place], 'errors': errors[place].tolist()}
                for place in order[: args.count]
                if gain[place] > 0
            ],
        }
        write_json(args.out / 'comparison.json', content)
        draw_differences(report, names, args.out / 'differences.png')
        written = ['comparison.json', 'differences.png']
        marked = [(names[0], first, used[0]), (names[1], second, used[1])]
        panels = side_by_side(data, marked, errors, args.count)
        if not panels:
            print('no image got worse: no worst_images.png')
        elif not Path(panels[0].path).is_file():
            print(f'no image at {panels[0].path}: no worst_images.png; give --images')
        else:
            title = f'Images that got worse from {names[0]} to {names[1]}'
            draw_sheet(panels, args.out / 'worst_images.png', title, columns=2)
            written.append('worst_images.png')
    except (ValueError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    for name in written:
        print(args.out / name)
    return 0


def _names(paths: tuple[Path, Path]) -> tuple[str, str]:
    """Return short names of two files that differ."""
    if paths[0].stem != paths[1].stem:
        return paths[0].stem, paths[1].stem
    return str(paths[0]), str(paths[1])


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('first', type=Path, help='pickle of the first results')
    add('second', type=Path, help='pickle of the second results')
    add('truth', type=Path, help='config (.py) or COCO annotations (.json)')
    add('--out', type=Path, required=True, help='folder')
    add('--images', type=Path, help='of annotations, the folder of the images')
    add('--iou', type=float, nargs='+', default=COCO_IOU, help="default: COCO's ten")
    add('--count', type=int, default=6, help='images to draw; default: %(default)s')
    add('--classes', nargs='+', help='of annotations, in the order of the labels')
    add('--resamples', type=int, default=1000, help='default: %(default)s')
    add('--seed', type=int, default=0, help='of the resamples')
    add('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE')
    return parser.parse_args(argv)


if __name__ == '__main__':
    sys.exit(main())
