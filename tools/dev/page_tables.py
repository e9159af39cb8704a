"""Tables of the pages: benchmarks from docs/results/, and the tools, as Markdown."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[2]


def figures(content: dict[str, Any]) -> str:
    """Write one line per measured piece of work: times, share of memory, multiple of the floor.

    Args:
        content: what bench_assigners.py wrote.
    """
    lines = [
        "| work | mmdet, ms | ours, ms | speed-up | memory, share of mmdet's "
        '| ours, times the floor |',
        '| --- | ---: | ---: | ---: | ---: | ---: |',
    ]
    for row in content['rows']:
        stock, ours = row['timings']
        floor = content['floor_ms'][row['work']]
        lines.append(
            f'| {row["work"]} | {stock["median_ms"]:,.1f} | {ours["median_ms"]:.1f} '
            f'| {ours["ratio"]:.1f} x | {ours["memory_share"]:.4f} '
            f'| {ours["median_ms"] / floor:.0f} x |'
        )
    return '\n'.join(lines)


def head_figures(content: dict[str, Any]) -> str:
    """Write one line per contender: time, memory beyond the gradients, multiple of the floor."""
    lines = [
        '| work | head | ms | share of the first | memory, MiB | share of the first '
        '| times the floor |',
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
    """Write one line per assigner for an image of very many boxes."""
    found = content['crowd']
    rows = found['rows'].items()
    return '\n'.join(
        [
            f'| {found["boxes"]:,} boxes in one image | seconds | peak memory, MiB |',
            '| --- | ---: | ---: |',
            *(f'| {name} | {row["s"]:.1f} | {row["peak_mib"]:.0f} |' for name, row in rows),
        ]
    )


def tools() -> str:
    """Write one line per tool: its path and the first line of its docstring."""
    lines = ['| tool | description |', '| --- | --- |']
    for path in sorted((REPO / 'tools').glob('*/*.py')):
        text = path.read_text(encoding='utf-8')
        summary = (ast.get_docstring(ast.parse(text)) or '').splitlines()[0].rstrip('.')
        # The other files are parts of a tool.
        if "__name__ == '__main__'" in text:
            lines.append(f'| `{path.relative_to(REPO)}` | {summary} |')
    return '\n'.join(lines)
