"""Choose the threshold of the score from the results of a test, per class and for all classes.

    python tools/analysis/choose_threshold.py RESULTS.pkl CONFIG --out DIR
    python tools/analysis/choose_threshold.py RESULTS.pkl TRUTH.json --precision 0.95 --out DIR

RESULTS.pkl is what ``mim test mmdet CONFIG --checkpoint X.pth --out RESULTS.pkl`` writes. The
ground truth is that of the config's test data, of any type, or a COCO annotation file.

Prints the threshold with the highest F1, and those that reach each wished --precision, --recall or
--fppi (false detections per image), or that none does. Writes operating_points.json, with intervals
by resampling the images, and operating_points.png: precision-recall, F1 by threshold, and recall by
false detections per image. Choose the threshold on validation data, and report it on test data.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mmdet.utils import register_all_modules

from mmdet_ext.analysis.detection.operating_points import (
    PointOptions,
    operating_points,
    summary_table,
)
from mmdet_ext.detection.metrics.sources import detections_of_file, ground_truth
from mmdet_ext.plots.detection.operating_points import draw_operating_points
from mmdet_ext.utils.files import write_json


def main(argv: list[str] | None = None) -> int:
    """Print and draw the operating points; return 0, or 2 for wrong input."""
    args = _parse(argv)
    register_all_modules()
    try:
        options = PointOptions(
            iou_thresholds=args.iou,
            score_thresholds=args.score_thr,
            wishes=[
                *(('precision', value) for value in args.precision),
                *(('recall', value) for value in args.recall),
                *(('fppi', value) for value in args.fppi),
            ],
            miss_rate=args.miss_rate,
            resamples=args.resamples,
            seed=args.seed,
        )
        data = ground_truth(args.truth, args.classes, cfg_options=args.cfg_options)
        found = detections_of_file(args.results, data)
        report = operating_points(data, found, options)
        print(summary_table(report))
        write_json(args.out / 'operating_points.json', report)
        draw_operating_points(report, args.out / 'operating_points.png')
    except (ValueError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    print(args.out / 'operating_points.json')
    print(args.out / 'operating_points.png')
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('results', type=Path, help='pickle of the results')
    add('truth', type=Path, help='config (.py) or COCO annotations (.json)')
    add('--out', type=Path, required=True, help='folder')
    add('--iou', type=float, nargs='+', default=[0.5], help='default: 0.5')
    add('--score-thr', type=float, nargs='+', default=[0.3, 0.5], help='scores to report at')
    for name in ('precision', 'recall', 'fppi'):
        add(f'--{name}', type=float, nargs='+', default=[], help=f'{name} to reach')
    add('--miss-rate', choices=('dollar', 'crowdhuman'), default='dollar')
    add('--classes', nargs='+', help='of annotations, in the order of the labels')
    add('--resamples', type=int, default=1000, help='0 for no intervals; default: %(default)s')
    add('--seed', type=int, default=0, help='of the resamples')
    add('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE')
    return parser.parse_args(argv)


if __name__ == '__main__':
    sys.exit(main())
