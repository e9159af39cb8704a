"""Count the hard inputs on which each loss, and mmdet's loss of the same name, fails.

    python tools/analysis/loss_robustness.py [--out docs/results/losses_robustness]

For every registered loss: 20,000 hard cases in float32, float16, bfloat16, and half precision
predictions against float32 targets. Boxes: identical, disjoint, nested, without area, inverted,
near; 1e-3 to 1e4 px. Logits: up to +-1e4, with ignored labels and samples without positives. A case
counts if its loss or its gradient is NaN or infinite, or if the loss raises an error because of it.
Writes the table as OUT.md and OUT.json.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from mmdet_ext.catalog.loss_cases import LOSSES
from mmdet_ext.studies.loss_robustness import PRECISIONS, count_failures, robustness_table
from mmdet_ext.utils.files import write_json, write_text

PAGE = """# Losses on hard cases

{cases:,} cases per loss and precision, made by

    {command}

A cell counts the cases whose loss is not a finite number, whose gradient is not, or that make the
loss raise an error. A row of `mmdet` is its own loss, followed by our drop-in replacement. In the
last two columns the predictions are in half precision and the targets in float32.

{table}
"""


def main(argv: list[str] | None = None) -> int:
    """Count, print and, with --out, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--cases', type=int, default=20_000)
    parser.add_argument('--losses', nargs='+', metavar='NAME', help='default: all')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out', type=Path, help='files to write, without suffix')
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    unknown = set(args.losses or ()) - {case.name for case in LOSSES}
    if unknown:
        parser.error(f'--losses: there is no {", ".join(sorted(unknown))}')
    counts = []
    for case in LOSSES:
        if args.losses and case.name not in args.losses:
            continue
        for precision in PRECISIONS:
            for scope in ('mmdet', 'mmdet_ext')[case.twin_scope != 'mmdet' :]:
                counts.append(count_failures(case, scope, precision, args.cases, args.seed))
                if sys.stderr.isatty():
                    print(f'\r{counts[-1].loss}, {precision}\033[K', end='', file=sys.stderr)
    text = robustness_table(counts)
    print(text)
    if args.out is not None:
        command = (
            f'python tools/analysis/loss_robustness.py --cases {args.cases} --seed {args.seed}'
        )
        page = PAGE.format(cases=args.cases, command=command, table=text)
        write_text(args.out.with_suffix('.md'), page)
        rows = {'torch': torch.__version__, 'rows': [asdict(count) for count in counts]}
        write_json(args.out.with_suffix('.json'), rows)
    return 0


if __name__ == '__main__':
    sys.exit(main())
