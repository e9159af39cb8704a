"""Write the tables of README.md: the components, and the assigners' benchmark.

    python tools/readme_tables.py            (writes)
    python tools/readme_tables.py --check    (exit code 1 where README.md is out of date)

The components come from the contract table and the docstrings, the figures from
docs/results/bench_assigners.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from mmdet_ext import registry
from mmdet_ext.testing import cases
from mmdet_ext.utils.files import write_text

REPO = Path(__file__).resolve().parents[1]
README = REPO / 'README.md'
FIGURES = REPO / 'docs' / 'results' / 'bench_assigners.json'
GROUPS: tuple[tuple[str, registry.ExtRegistry, tuple[Any, ...]], ...] = (
    ('loss', registry.MODELS, cases.LOSSES),
    ('head', registry.MODELS, cases.HEADS),
    ('sampler', registry.TASK_UTILS, cases.SAMPLERS),
    ('label assigner', registry.TASK_UTILS, cases.ASSIGNERS),
    ('overlap measure', registry.TASK_UTILS, cases.CALCULATORS),
    ('data set', registry.DATASETS, cases.DATASETS),
)


def main(argv: list[str] | None = None) -> int:
    """Write or check the tables; returns 1 if a check finds one out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--check', action='store_true', help='only tell whether they are current')
    args = parser.parse_args(argv)
    old = README.read_text(encoding='utf-8')
    new = with_table(with_table(old, 'components', components()), 'figures', figures())
    if old == new:
        return 0
    if args.check:
        print('error: README.md: run python tools/readme_tables.py', file=sys.stderr)
        return 1
    write_text(README, new)
    return 0


def with_table(text: str, name: str, table: str) -> str:
    """The text with what stands between the marks ``<!-- name: start/stop -->`` renewed."""
    start, stop = f'<!-- {name}: start -->', f'<!-- {name}: stop -->'
    if text.count(start) != 1 or text.count(stop) != 1:
        raise ValueError(f'README.md must hold the marks {start} and {stop} once each')
    head, _, rest = text.partition(start)
    return f'{head}{start}\n{table}\n{stop}{rest.partition(stop)[2]}'


def components() -> str:
    """One line a component: its type, what it is, the stock class that it stands in for."""
    lines = ['| type | kind | what it is | replaces |', '| --- | --- | --- | --- |']
    for kind, nodes, rows in GROUPS:
        # A component may have several rows, of which the one with a twin tells.
        twins_last = sorted(rows, key=lambda row: (row.name, row.twin is not None))
        for case in {row.name: row for row in twins_last}.values():
            summary = (nodes.get(case.name).__doc__ or '').splitlines()[0]
            summary = summary.rstrip('.').replace('``', '`')
            twin = f"stock's `{case.twin}`" if case.twin else ''
            lines.append(f'| `mmdet_ext.{case.name}` | {kind} | {summary} | {twin} |')
    return '\n'.join(lines)


def figures() -> str:
    """One line a measured piece of work: stock's time, ours, the ratio, the share of memory."""
    lines = [
        "| work | stock, ms | ours, ms | faster by | peak memory, of stock's |",
        '| --- | ---: | ---: | ---: | ---: |',
    ]
    for row in json.loads(FIGURES.read_text(encoding='utf-8'))['rows']:
        stock, ours = row['timings']
        lines.append(
            f'| {row["work"]} | {stock["median_ms"]:.1f} | {ours["median_ms"]:.1f} '
            f'| {ours["ratio"]:.1f} x | {ours["memory_share"]:.3f} |'
        )
    return '\n'.join(lines)


if __name__ == '__main__':
    sys.exit(main())
