"""Write the tables of README.md, docs/assigners.md and docs/face.md: components and benchmarks.

    python tools/dev/readme_tables.py            (writes)
    python tools/dev/readme_tables.py --check    (exit code 1 where README.md is out of date)

The components come from the contract table and the docstrings, the figures from
docs/results/bench_assigners.json and docs/results/bench_margin_head.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from mmdet_ext import registry
from mmdet_ext.catalog import cases
from mmdet_ext.utils.files import write_text

REPO = Path(__file__).resolve().parents[2]
README = REPO / 'README.md'
ASSIGNERS_PAGE = REPO / 'docs' / 'assigners.md'
FIGURES = REPO / 'docs' / 'results' / 'bench_assigners.json'
FACE_PAGE = REPO / 'docs' / 'face.md'
HEAD_FIGURES = REPO / 'docs' / 'results' / 'bench_margin_head.json'
Groups = tuple[tuple[str, registry.ExtRegistry, tuple[Any, ...]], ...]
GROUPS: Groups = (
    ('loss', registry.MODELS, cases.LOSSES),
    ('head', registry.MODELS, cases.HEADS),
    ('sampler', registry.TASK_UTILS, cases.SAMPLERS),
    ('label assigner', registry.TASK_UTILS, cases.ASSIGNERS),
    ('overlap measure', registry.TASK_UTILS, cases.CALCULATORS),
    ('data set', registry.DATASETS, cases.DATASETS),
)
FACE_GROUPS: Groups = (
    ('head', registry.MODELS, cases.FACE_HEADS),
    ('margin', registry.MARGINS, cases.MARGINS),
    ('loss on features', registry.MODELS, cases.FEATURE_LOSSES),
    ('backbone', registry.MODELS, cases.BACKBONES),
    ('preprocessor', registry.MODELS, cases.PREPROCESSORS),
    ('data set', registry.DATASETS, cases.FACE_DATASETS),
    ('sampler', registry.DATA_SAMPLERS, cases.DATA_SAMPLERS),
    ('transform', registry.TRANSFORMS, cases.TRANSFORMS),
    ('metric', registry.METRICS, cases.METRICS),
    ('hook', registry.HOOKS, cases.HOOKS),
)


def main(argv: list[str] | None = None) -> int:
    """Write or check the tables; returns 1 if a check finds one out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--check', action='store_true', help='only tell whether they are current')
    args = parser.parse_args(argv)
    content = json.loads(FIGURES.read_text(encoding='utf-8'))
    tables = (
        (
            README,
            {
                'components': components(GROUPS),
                'face components': components(FACE_GROUPS),
                'figures': figures(content, ('300 boxes',)),
            },
        ),
        (FACE_PAGE, {'figures': head_figures(json.loads(HEAD_FIGURES.read_text('utf-8')))}),
        (ASSIGNERS_PAGE, {'figures': figures(content), 'crowd': crowd(content)}),
    )
    stale = 0
    for path, named in tables:
        old = new = path.read_text(encoding='utf-8')
        for name, table in named.items():
            new = with_table(new, name, table)
        if old != new and args.check:
            print(f'error: {path.name}: run python tools/dev/readme_tables.py', file=sys.stderr)
            stale = 1
        elif old != new:
            write_text(path, new)
    return stale


def with_table(text: str, name: str, table: str) -> str:
    """The text with what stands between the marks ``<!-- name: start/stop -->`` renewed."""
    start, stop = f'<!-- {name}: start -->', f'<!-- {name}: stop -->'
    if text.count(start) != 1 or text.count(stop) != 1:
        raise ValueError(f'the page must hold the marks {start} and {stop} once each')
    head, _, rest = text.partition(start)
    return f'{head}{start}\n{table}\n{stop}{rest.partition(stop)[2]}'


def components(groups: Groups) -> str:
    """One line a component: its type, what it is, the stock class that it stands in for."""
    lines = ['| type | kind | what it is | replaces |', '| --- | --- | --- | --- |']
    for kind, nodes, rows in groups:
        # A component may have several rows, of which the one with a twin tells.
        twins_last = sorted(rows, key=lambda row: (row.name, row.twin is not None))
        for case in {row.name: row for row in twins_last}.values():
            summary = (nodes.get(case.name).__doc__ or '').splitlines()[0]
            summary = summary.rstrip('.').replace('``', '`')
            twin = f"stock's `{case.twin}`" if case.twin else ''
            lines.append(f'| `mmdet_ext.{case.name}` | {kind} | {summary} | {twin} |')
    return '\n'.join(lines)


def figures(content: dict[str, Any], only: tuple[str, ...] = ('',)) -> str:
    """One line a measured piece of work: times, their ratio, share of memory, times the floor.

    Args:
        content: what bench_assigners.py wrote.
        only: endings of the work's names that are shown.
    """
    lines = [
        "| work | stock, ms | ours, ms | faster by | peak memory, of stock's | ours, of floor |",
        '| --- | ---: | ---: | ---: | ---: | ---: |',
    ]
    for row in content['rows']:
        if not row['work'].endswith(only):
            continue
        stock, ours = row['timings']
        floor = content['floor_ms'][row['work']]
        lines.append(
            f'| {row["work"]} | {stock["median_ms"]:,.1f} | {ours["median_ms"]:.1f} '
            f'| {ours["ratio"]:.1f} x | {ours["memory_share"]:.4f} '
            f'| {ours["median_ms"] / floor:.0f} x |'
        )
    return '\n'.join(lines)


def head_figures(content: dict[str, Any]) -> str:
    """One line a contender: times, memory beyond the gradients, both to the first, the floor."""
    lines = [
        '| work | head | ms | of the first | memory, MiB | of the first | of the floor |',
        '| --- | --- | ---: | ---: | ---: | ---: | ---: |',
    ]
    for row in content['rows']:
        floor, several = content['floor_ms'][row['work']], len(row['timings']) > 1
        for t in row['timings']:
            cells = [row['work'], t['name'], f'{t["median_ms"]:,.0f}']
            cells.append(f'{1 / t["ratio"]:.2f}' if several else '')
            cells.append(f'{t["peak_mib"]:,.1f}')
            cells.append(f'{t["memory_share"]:.3f}' if several else '')
            cells.append(f'{t["median_ms"] / floor:.2f} x')
            lines.append('| ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def crowd(content: dict[str, Any]) -> str:
    """One line an assigner: a picture of very many boxes."""
    found = content['crowd']
    lines = [
        f'| {found["boxes"]:,} boxes in one picture | seconds | peak memory, MiB |',
        '| --- | ---: | ---: |',
    ]
    lines += [
        f'| {name} | {row["s"]:.1f} | {row["peak_mib"]:.0f} |'
        for name, row in found['rows'].items()
    ]
    return '\n'.join(lines)


if __name__ == '__main__':
    sys.exit(main())
