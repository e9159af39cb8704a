"""Find the kinds of errors in the results of a test, and how much AP each kind costs (TIDE).

    python tools/analysis/analyze_errors.py RESULTS.pkl CONFIG --out DIR
    python tools/analysis/analyze_errors.py RESULTS.pkl ANNOTATIONS.json --images FOLDER --out DIR

RESULTS.pkl is what ``mim test mmdet CONFIG --checkpoint X.pth --out RESULTS.pkl`` writes.

Kinds are: localisation (near its class), class (on another class), duplicate, background, both
(another class, and near), and missed boxes. Each kind alone is corrected, and the gain of AP at
IoU 0.5 is its cost; costs do not sum up. Prints a table in all and by size, and writes errors.json,
errors.png, and a sheet of examples of each kind, errors_<kind>.png, with the highest scores.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmdet.utils import register_all_modules

from mmdet_ext.analysis.detection.columns import Detections, TruthSet
from mmdet_ext.analysis.detection.errors import KINDS, Errors, error_report
from mmdet_ext.analysis.detection.examples import error_examples
from mmdet_ext.detection.metrics.sources import detections_of_file, ground_truth
from mmdet_ext.plots.detection.errors import draw_errors
from mmdet_ext.plots.detection.sheets import draw_sheet
from mmdet_ext.utils.files import write_json


def main(argv: list[str] | None = None) -> int:
    """Print and draw the errors; return 0, or 2 for wrong input."""
    args = _parse(argv)
    register_all_modules()
    try:
        data = ground_truth(args.truth, args.classes, args.images, args.cfg_options)
        found = detections_of_file(args.results, data)
        report, errors = error_report(data, found, args.foreground, args.background)
        print('\n'.join(_table(report)))
        write_json(args.out / 'errors.json', report)
        draw_errors(report, args.out / 'errors.png')
        print(args.out / 'errors.json')
        print(args.out / 'errors.png')
        for path in _sheets(data, found, errors, args):
            print(path)
    except (ValueError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    return 0


def _table(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of the table."""
    yield (
        f'AP {report["AP"]:.3f} at IoU {report["foreground"]:g}: {report["boxes"]:,} boxes, '
        f'{report["detections"]:,} detections, {report["hits"]:,} right, '
        f'{report["ignored"]:,} ignored'
    )
    sizes = list(report['kinds'][KINDS[0]]['by_size'])
    yield f'{"kind":<14}{"errors":>9}{"cost":>8}' + ''.join(f'{size:>16}' for size in sizes)
    for kind, entry in report['kinds'].items():
        cells = (f'{each["count"]:,} / {each["cost"]:.3f}' for each in entry['by_size'].values())
        line = f'{kind:<14}{entry["count"]:>9,}{entry["cost"]:>8.3f}'
        yield line + ''.join(f'{cell:>16}' for cell in cells)
    yield f'{"all false":<23}{report["false_positives"]:>8.3f}'
    yield f'{"all not found":<23}{report["false_negatives"]:>8.3f}'


def _sheets(
    data: TruthSet, found: Detections, errors: Errors, args: argparse.Namespace
) -> Iterator[Path]:
    """Draw the sheets of examples, and yield their paths."""
    for number, kind in enumerate(KINDS):
        examples = error_examples(data, found, errors, number, args.count)
        path = args.out / f'errors_{kind}.png'
        if not examples:
            path.unlink(missing_ok=True)  # of another result
            continue
        if not Path(examples[0].path).is_file():
            print(f'no image at {examples[0].path}: no sheets; give --images')
            return
        count = int(errors.missed.sum() if kind == 'missed' else (errors.kind == number).sum())
        draw_sheet(examples, path, f'{kind}: {len(examples)} of {count:,} errors')
        yield path


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('results', type=Path, help='pickle of the results')
    add('truth', type=Path, help='config (.py) or COCO annotations (.json)')
    add('--out', type=Path, required=True, help='folder')
    add('--images', type=Path, help='of annotations, the folder of the images')
    add('--foreground', type=float, default=0.5, help='IoU of a right detection; %(default)s')
    add('--background', type=float, default=0.1, help='IoU of one on nothing; %(default)s')
    add('--count', type=int, default=12, help='examples per sheet; default: %(default)s')
    add('--classes', nargs='+', help='of annotations, in the order of the labels')
    add('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE')
    return parser.parse_args(argv)


if __name__ == '__main__':
    sys.exit(main())
