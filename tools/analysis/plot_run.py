r"""Draw a run of mmdet: loss curve, precision-recall, detections beside the ground truth.

    python tools/analysis/plot_run.py work_dirs/my_run
    python tools/analysis/plot_run.py work_dirs/my_run --predictions preds.bbox.json \
        --annotations instances_val.json --images images/val

The first command also draws runs of mmseg (loss and mIoU) and of faces (loss and AUC). A test
writes the predictions with ``--cfg-options test_evaluator.outfile_prefix=preds``. The
figures and report.json are written to the work directory.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mmdet_ext.analysis.run_report import ReportError, evaluate, find_scalars, read_scalars
from mmdet_ext.plots.runs import write_report


def main(argv: list[str] | None = None) -> int:
    """Run the tool; return 0, or 2 for bad input."""
    args = _parse(argv)
    given = [args.predictions, args.annotations, args.images]
    try:
        if any(given) and not all(given):
            raise ReportError('--predictions, --annotations and --images go together: give all')
        curve = read_scalars(find_scalars(args.work_dir))
        evaluation = None
        if args.predictions:
            evaluation = evaluate(args.annotations, args.predictions, args.classes, args.score_thr)
        for path in write_report(args.work_dir, curve, evaluation, args.images):
            print(path)
    except ReportError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    if evaluation is None:
        print('only the loss: give --predictions, --annotations and --images for the detections')
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('work_dir', type=Path, help='work directory of the training')
    parser.add_argument('--predictions', type=Path, help='json of detections that CocoMetric wrote')
    parser.add_argument('--annotations', type=Path, help='COCO json of the ground truth')
    parser.add_argument('--images', type=Path, help='folder that the file names are relative to')
    parser.add_argument('--classes', nargs='+', help='only these classes; default: all with boxes')
    parser.add_argument('--score-thr', type=float, default=0.3, help='default: %(default)s')
    return parser.parse_args(argv)


if __name__ == '__main__':
    sys.exit(main())
