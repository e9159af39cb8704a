"""Draw the parts of the package and their imports to docs/images/plan.svg, from the source.

Each box is a part with the first line of its docstring; an arrow says that a part imports another,
unless it does so through a third. Run after an import between parts or such a line has changed:

    python tools/dev/draw_plan.py            (writes)
    python tools/dev/draw_plan.py --check    (exit code 1 where the drawing is out of date)
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from html import escape
from pathlib import Path
from textwrap import wrap

from source_facts import read_sources

from mmdet_ext.utils.files import write_text

REPO = Path(__file__).resolve().parents[2]
DRAWING = REPO / 'docs' / 'images' / 'plan.svg'
BOX_WIDTH, BOX_HEIGHT = 214, 92
GAP_X, GAP_Y, BORDER = 18, 54, 20
#: At most so many letters fit into a line of a box.
LETTERS = 33

Graph = dict[str, set[str]]


def main(argv: list[str] | None = None) -> int:
    """Write or check the drawing; return 1 if a check finds it out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--check', action='store_true', help='only report whether it is current')
    args = parser.parse_args(argv)
    summaries, graph = read_parts()
    drawing = draw(summaries, without_detours(graph))
    if DRAWING.is_file() and DRAWING.read_text(encoding='utf-8') == drawing:
        return 0
    if args.check:
        print(f'error: {DRAWING.name}: run python tools/dev/draw_plan.py', file=sys.stderr)
        return 1
    write_text(DRAWING, drawing)
    return 0


def read_parts() -> tuple[dict[str, str], Graph]:
    """Read the first line of each part's docstring, and the parts that it imports."""
    summaries: dict[str, str] = {}
    graph: Graph = {}
    for source in read_sources(REPO, 'mmdet_ext'):
        parts = source.path.with_suffix('').parts[1:]
        if parts in (('__init__',), ('version',)):
            continue
        imported = graph.setdefault(parts[0], set())
        if len(parts) == 1 or parts[1:] == ('__init__',):
            summaries[parts[0]] = (ast.get_docstring(source.tree) or '').split('\n\n')[0]
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ImportFrom) and (node.module or '').startswith('mmdet_ext'):
                names = [f'{node.module}.{alias.name}' for alias in node.names]
                imported |= {name.split('.')[1] for name in names} - {parts[0]}
    return summaries, {part: names & set(graph) for part, names in graph.items()}


def without_detours(graph: Graph) -> Graph:
    """Leave out the imports that also follow from another import."""

    def reach(part: str) -> set[str]:
        return graph[part].union(*(reach(name) for name in graph[part]))

    return {
        part: {name for name in names if not any(name in reach(other) for other in names)}
        for part, names in graph.items()
    }


def draw(summaries: dict[str, str], graph: Graph) -> str:
    """Draw parts in rows: each above all that it imports."""
    rank: dict[str, int] = {}
    while len(rank) < len(graph):
        for part in sorted(graph.keys() - rank.keys()):
            if graph[part] <= rank.keys():
                rank[part] = 1 + max((rank[name] for name in graph[part]), default=-1)
    rows = [
        [part for part in graph if rank[part] == level] for level in range(max(rank.values()) + 1)
    ]
    width = max(len(row) for row in rows) * (BOX_WIDTH + GAP_X) - GAP_X + 2 * BORDER
    height = len(rows) * (BOX_HEIGHT + GAP_Y) - GAP_Y + 2 * BORDER
    corner: dict[str, tuple[float, float]] = {}
    for level, row in enumerate(rows):
        # A part stands about above what it imports, so that arrows cross less.
        row.sort(key=lambda part: sum(corner[n][0] for n in graph[part]) / max(len(graph[part]), 1))
        left = (width - len(row) * (BOX_WIDTH + GAP_X) + GAP_X) / 2
        top = height - BORDER - BOX_HEIGHT - level * (BOX_HEIGHT + GAP_Y)
        corner |= {part: (left + i * (BOX_WIDTH + GAP_X), top) for i, part in enumerate(row)}
    arrows = [_arrow(corner[a], corner[b]) for a in sorted(graph) for b in sorted(graph[a])]
    boxes = [_box(part, summaries[part], *corner[part]) for part in sorted(graph)]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif">\n<defs><marker id="tip" markerWidth="9" markerHeight="8" '
        'refX="8" refY="4" orient="auto"><path d="M0 0L9 4L0 8z" fill="#567"/></marker></defs>\n'
        f'<rect width="{width}" height="{height}" fill="#fff"/>'
    )
    return '\n'.join([head, *arrows, *boxes, '</svg>', ''])


def _arrow(start: tuple[float, float], end: tuple[float, float]) -> str:
    x, y = start[0] + BOX_WIDTH / 2, start[1] + BOX_HEIGHT
    to_x, to_y = end[0] + BOX_WIDTH / 2 + (x - end[0] - BOX_WIDTH / 2) * 0.12, end[1]
    bend = GAP_Y * 0.7
    curve = [x, y, x, y + bend, to_x, to_y - bend, to_x, to_y]
    path = 'M{:.0f} {:.0f}C{:.0f} {:.0f} {:.0f} {:.0f} {:.0f} {:.0f}'.format(*curve)
    return f'<path d="{path}" fill="none" stroke="#567" marker-end="url(#tip)"/>'


def _box(part: str, summary: str, x: float, y: float) -> str:
    lines = wrap(' '.join(re.sub(r':\w+:|`', '', summary).split()), LETTERS)[:4]
    text = ''.join(
        f'<text x="{x + 10:.0f}" y="{y + 38 + 14 * i:.0f}" font-size="11" fill="#333">'
        f'{escape(line)}</text>'
        for i, line in enumerate(lines)
    )
    return (
        f'<rect x="{x:.0f}" y="{y:.0f}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="6" '
        f'fill="#eef3f8" stroke="#567"/><text x="{x + 10:.0f}" y="{y + 20:.0f}" font-size="14" '
        f'font-weight="bold" fill="#123">{part}</text>{text}'
    )


if __name__ == '__main__':
    sys.exit(main())
