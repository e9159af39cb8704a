"""Write the tables of docs/: components from the registries, figures from docs/results/.

Run after a component, its first line or a benchmark has changed:

    python tools/dev/tables.py            (writes)
    python tools/dev/tables.py --check    (exit code 1 where a page is out of date)
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import host_tables
from page_tables import crowd, figures, head_figures, tools

from mmdet_ext import registry
from mmdet_ext.catalog.cases import CASES
from mmdet_ext.registry import ExtRegistry as Registry
from mmdet_ext.utils.files import write_text

DOCS = Path(__file__).resolve().parents[2] / 'docs'
#: Where a component lies -> its kind, in the order of the tables; the last part that fits counts.
DETECTION = {
    'losses': 'loss',
    'detection.losses': 'loss',
    'detection.heads': 'head',
    'detection.heads.roi': 'RoI head or extractor',
    'detection.necks': 'neck',
    'detection.backbones': 'backbone',
    'detection.detectors': 'detector',
    'detection.samplers': 'sampler',
    'detection.assigners': 'label assigner',
    'detection.assigners.iou_calculators': 'overlap measure',
    'detection.datasets': 'data set',
    'detection.transforms': 'transform',
    'detection.hooks': 'hook',
    'detection.metrics': 'metric',
    'engine.samplers': 'sampler of images',
}
FACE = {
    'face.heads': 'head',
    'face.margins': 'margin',
    'face.losses': 'loss on features',
    'face.backbones': 'backbone',
    'face.preprocessor': 'preprocessor',
    'face.datasets': 'data set',
    'face.samplers': 'sampler',
    'face.transforms': 'transform',
    'face.metrics': 'metric',
    'face.hooks': 'hook',
    'face.sharding': 'model wrapper',
}
SEGMENTATION = {'segmentation.metrics': 'metric'}
POSE = {'pose.losses': 'loss', 'pose.codecs': 'codec', 'pose.heads': 'head'}


def main(argv: list[str] | None = None) -> int:
    """Write or check the tables; return 1 if a check finds one out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--check', action='store_true', help='only report whether they are current')
    args = parser.parse_args(argv)
    assigners, head = (_read_figures(f'bench_{name}') for name in ('assigners', 'margin_head'))
    tables = {
        'components.md': {
            'components': components(DETECTION),
            'face components': components(FACE),
            'segmentation components': components(SEGMENTATION),
            'pose components': components(POSE),
        },
        'assigners.md': {'figures': figures(assigners), 'crowd': crowd(assigners)},
        'tools.md': {'tools': tools()},
        'face.md': {'figures': head_figures(head)},
        'hosts.md': {
            'hosts': host_tables.hosts(),
            'details': host_tables.details(),
            'runs': host_runs(),
        },
    }
    stale = 0
    for page, named in tables.items():
        old = new = (DOCS / page).read_text(encoding='utf-8')
        for name, table in named.items():
            new = with_table(new, name, table)
        if old != new and args.check:
            print(f'error: docs/{page}: run python tools/dev/tables.py', file=sys.stderr)
            stale = 1
        elif old != new:
            write_text(DOCS / page, new)
    return stale


def host_runs() -> str:
    """Write the table of the sets of versions on which the tests were run, if any was."""
    path = DOCS / 'results' / 'hosts.json'
    if not path.is_file():
        return 'No run is recorded yet.'
    return host_tables.runs(json.loads(path.read_text('utf-8')))


def _read_figures(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((DOCS / 'results' / f'{name}.json').read_text('utf-8'))
    return content


def with_table(text: str, name: str, table: str) -> str:
    """Replace what stands between the marks ``<!-- name: start/stop -->`` of a page."""
    start, stop = f'<!-- {name}: start -->', f'<!-- {name}: stop -->'
    if text.count(start) != 1 or text.count(stop) != 1:
        raise ValueError(f'the page must hold the marks {start} and {stop} once each')
    head, _, rest = text.partition(start)
    return f'{head}{start}\n{table}\n{stop}{rest.partition(stop)[2]}'


def components(kinds: dict[str, str]) -> str:
    """Write one line per component: its type, its summary, the class of a host that it replaces."""
    order = list(dict.fromkeys(kinds.values()))
    rows = []
    for nodes in (part for part in vars(registry).values() if isinstance(part, Registry)):
        nodes.import_from_location()
        for name, component in nodes.module_dict.items():
            parts = component.__module__.split('.')[1:]
            fitting = ['.'.join(parts[:end]) for end in range(1, len(parts) + 1)]
            fitting = [part for part in fitting if part in kinds]
            if fitting:
                kind, summary = kinds[fitting[-1]], component.__doc__.splitlines()[0].rstrip('.:')
                cells = [
                    kind,
                    summary.replace('``', '`').replace('|', r'\|'),
                    replaced(name),
                ]
                rows.append((order.index(kind), name, ' | '.join(cells)))
    lines = ['| type | kind | description | replaces |', '| --- | --- | --- | --- |']
    lines += [f'| `mmdet_ext.{name}` | {cells} |' for _, name, cells in sorted(rows)]
    return '\n'.join(lines)


def replaced(name: str) -> str:
    """Name the class of a host that one of ours replaces, by the contract table."""
    scopes = {case.twin_scope: None for case in CASES if case.twin == name}
    return ', '.join(f"{scope}'s `{name}`" for scope in scopes)


if __name__ == '__main__':
    sys.exit(main())
