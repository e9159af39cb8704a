"""Train a small detector, test it, and draw its results: on synthetic shapes or on your own data.

    python tools/train/demo.py
    python tools/train/demo.py --data FOLDER        (COCO or Pascal VOC layout)

Runs ``mim train mmdet`` and ``mim test mmdet`` as a user would type them, then writes
detections.png, loss_curve.png, precision_recall.png and report.json to the work directory. Nothing
is written into FOLDER.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from mmdet_ext.analysis.run_report import ReportError
from mmdet_ext.data.coco.training_sets import read_training_sets
from mmdet_ext.data.coco.voc_folder import VocError
from mmdet_ext.data.reports import LayoutError
from mmdet_ext.data.synthetic.shape_scenes import ShapesError
from mmdet_ext.studies import detection_demo
from mmdet_ext.utils.mim import MimError

REPO = Path(__file__).resolve().parents[2]
CONFIG = REPO / 'configs' / 'detection' / 'atss' / 'atss_r18_fpn_demo_shapes.py'


def main(argv: list[str] | None = None) -> int:
    """Run the demo; return 0, 1 if training or testing failed, or 2 for bad input."""
    args = _parse(argv)
    start = time.monotonic()
    work_dir = args.work_dir.expanduser().resolve()
    try:
        work_dir.mkdir(parents=True, exist_ok=True)
        if args.data is None:
            detection_demo.provide_shapes(CONFIG, REPO)
            config = CONFIG
        else:
            data = read_training_sets(args.data, work_dir / 'data', args.seed)
            config = detection_demo.write_config(CONFIG, data, work_dir, args.seed)
        options = args.cfg_options
        checkpoint = detection_demo.run_training(config, work_dir, args.seed, options, REPO)
        predictions = detection_demo.run_test(config, checkpoint, work_dir, options, REPO)
        detection_demo.report_run(config, checkpoint, predictions, work_dir, REPO)
    except (LayoutError, VocError, ShapesError, ReportError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    except MimError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    seconds = round(time.monotonic() - start)
    print(f'Done in {seconds // 60} min {seconds % 60} s.')
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--data', type=Path, help='folder of your own; default: shapes are made')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/demo'))
    parser.add_argument('--seed', type=int, default=0, help='default: %(default)s')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='handed on to mim train and mim test, e.g. train_cfg.max_epochs=2',
    )
    return parser.parse_args(argv)


if __name__ == '__main__':
    sys.exit(main())
