"""Measure the code of this checkout, beside that of an earlier revision.

    python tools/dev/code_figures.py [--base REVISION] [--out FILE.json]

Prints sizes of modules and functions, near-duplicate functions, docstrings that open with a
question word, folders by their number of files, option checks, and for each kind of component the
median number of files that name one.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from source_facts import (
    OPENINGS,
    body_lines,
    files_naming,
    near_duplicates,
    read_sources,
    registered_types,
)

REPO = Path(__file__).resolve().parents[2]
PARTS = ('mmdet_ext', 'tools', 'tests', 'configs')
#: Text files that are made by a tool, or hold its results.
MADE = ('docs/results/', 'docs/components.md', 'CHANGELOG.md')


def main(argv: list[str] | None = None) -> int:
    """Print the figures; returns 2 for a revision that is not there."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').partition('\n')[0])
    parser.add_argument('--base', metavar='REVISION', help='revision to compare with')
    parser.add_argument('--out', type=Path, metavar='FILE.json', help='write the figures there')
    args = parser.parse_args(argv)
    columns = {'now': figures(REPO)}
    if args.base:
        with tempfile.TemporaryDirectory() as folder:
            packed = subprocess.run(
                ['git', 'archive', args.base], cwd=REPO, capture_output=True, check=False
            )
            if packed.returncode:
                print(f'error: --base {args.base}: {packed.stderr.decode()}', file=sys.stderr)
                return 2
            with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
                archive.extractall(folder, filter='data')
            columns = {args.base: figures(Path(folder)), **columns}
    print(table(columns))
    if args.out is not None:
        args.out.write_text(json.dumps(columns, indent=2) + '\n', encoding='utf-8')
    return 0


def figures(root: Path) -> dict[str, Any]:
    """Measure a checkout: each figure by its name."""
    package = read_sources(root, 'mmdet_ext')
    code = [*package, *read_sources(root, 'tools')]
    everything = read_sources(root, *PARTS)
    lengths = [body_lines(function) for source in code for function in source.functions()]
    texts = [text for source in everything for text in source.docstrings()]
    opened = sum(bool(OPENINGS.match(text)) for text in texts)
    folders: dict[Path, int] = {}
    for source in [*code, *read_sources(root, 'tests')]:
        if source.path.name != '__init__.py':
            folders[source.path.parent] = folders.get(source.path.parent, 0) + 1
    checks = [f for source in package for f in source.functions() if 'check' in f.name]
    found: dict[str, Any] = {
        'Python files': len(everything),
        'lines, package': sum(source.lines for source in package),
        'lines, tools': sum(source.lines for source in code) - sum(s.lines for s in package),
        'lines, longest module': max(source.lines for source in code),
        'lines, longest tool': max(s.lines for s in code if s.path.parts[0] == 'tools'),
        'lines, longest test module': max(s.lines for s in read_sources(root, 'tests')),
        'lines, longest function': max(lengths),
        'lines, median function': median(lengths),
        'groups of near-duplicate functions': len(near_duplicates(code)),
        'docstrings': len(texts),
        'docstrings that open with a question word': opened,
        'files in the fullest folder': max(folders.values()),
        'functions that check options': len(checks),
        'lines of these': sum((f.end_lineno or 0) - f.lineno + 1 for f in checks),
    }
    files = [str(source.path) for source in everything] + [
        str(path.relative_to(root)) for path in (*root.glob('*.md'), *root.glob('docs/**/*.md'))
    ]
    files = [file for file in files if not file.startswith(MADE)]
    for kind, names in sorted(registered_types(package).items()):
        found[f'files that name one: {kind}'] = median(files_naming(root, names, files).values())
    return found


def table(columns: dict[str, dict[str, Any]]) -> str:
    """Return a Markdown table: a row per figure, a column per checkout."""
    rows = list(dict.fromkeys(name for column in columns.values() for name in column))
    lines = [' | '.join(['figure', *columns]), ' | '.join(['---'] * (1 + len(columns)))]
    lines += [
        ' | '.join([name, *(str(column.get(name, '')) for column in columns.values())])
        for name in rows
    ]
    return '\n'.join(f'| {line} |' for line in lines)


if __name__ == '__main__':
    sys.exit(main())
