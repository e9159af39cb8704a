"""Write the table of components into README.md, from the contract table and the docstrings.

    python tools/component_table.py            (writes)
    python tools/component_table.py --check    (exit code 1 where README.md is out of date)
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from mmdet_ext import registry
from mmdet_ext.testing import cases

README = Path(__file__).resolve().parents[1] / 'README.md'
START, STOP = '<!-- components: start -->', '<!-- components: stop -->'
GROUPS: tuple[tuple[str, registry.ExtRegistry, tuple[Any, ...]], ...] = (
    ('loss', registry.MODELS, cases.LOSSES),
    ('label assigner', registry.TASK_UTILS, cases.ASSIGNERS),
    ('data set', registry.DATASETS, cases.DATASETS),
)


def main(argv: list[str] | None = None) -> int:
    """Write or check the table; returns 1 if a check finds it out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--check', action='store_true', help='only tell whether it is current')
    args = parser.parse_args(argv)
    old = README.read_text(encoding='utf-8')
    new = with_table(old)
    if old == new:
        return 0
    if args.check:
        print('error: README.md: run python tools/component_table.py', file=sys.stderr)
        return 1
    README.write_text(new, encoding='utf-8')
    return 0


def with_table(text: str) -> str:
    """The text with the table between its marks renewed."""
    head, _, rest = text.partition(START)
    _, _, tail = rest.partition(STOP)
    return f'{head}{START}\n{table()}\n{STOP}{tail}'


def table() -> str:
    """One line a component: its type, what it is, the stock class that it stands in for."""
    lines = ['| type | kind | what it is | replaces |', '| --- | --- | --- | --- |']
    for kind, nodes, rows in GROUPS:
        for case in sorted(rows, key=lambda row: row.name):
            summary = (nodes.get(case.name).__doc__ or '').splitlines()[0]
            summary = summary.rstrip('.').replace('``', '`')
            twin = f"stock's `{case.twin}`" if case.twin else ''
            lines.append(f'| `mmdet_ext.{case.name}` | {kind} | {summary} | {twin} |')
    return '\n'.join(lines)


if __name__ == '__main__':
    sys.exit(main())
