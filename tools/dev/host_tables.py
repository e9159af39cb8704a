"""Tables of docs/hosts.md: hosts, their calls of a loss, what claims them, runs of the tests."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mmdet_ext.catalog.case import KINDS
from mmdet_ext.catalog.hosts import HOSTS, TARGETS, Host, claims

REPO = Path(__file__).resolve().parents[2]
#: Kind of a case -> words of the page for several.
PLURALS = {
    'loss': 'losses',
    'feature loss': 'losses on features',
    'overlap measure': 'overlap measures',
    'data set': 'data sets',
    'face data set': 'data sets of faces',
    'head': 'detection heads',
    'RoI head': 'RoI heads',
    'RoI extractor': 'RoI extractors',
    'detection backbone': 'detection backbones',
    'detection transform': 'transforms of images with boxes',
    'mixing transform': 'transforms that mix images with boxes',
    'detection hook': 'hooks of detectors',
    'grouping loss': 'losses of embeddings that group',
    'face head': 'face heads',
    'keypoint loss': 'losses of heatmaps, tags and fields',
    'keypoint head': 'heads of keypoints',
    'keypoint codec': 'keypoint codecs',
}


def hosts() -> str:
    """Write one line per host: packages with their ranges, extras, scope, what else is tested."""
    lines = [
        '| host | package | fork | extra | scope | also tested |',
        '| --- | --- | --- | --- | --- | --- |',
    ]
    for host in HOSTS:
        extra = '' if host.extra is None else f'`{host.extra}`'
        extra += f', `onedl-{host.extra}`' if host.extra and host.fork else ''
        cells = [
            f'[{host.title}](#{anchor(host)})',
            f'`{requirement(host, "")}`',
            f'`{requirement(host, "onedl-")}`' if host.fork else 'none',
            extra or 'every one',
            f'`{host.scope}`',
            host.parts,
        ]
        lines.append('| ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def requirement(host: Host, prefix: str) -> str:
    """Return the line of the requirements that installs a host: its package and the range."""
    package = host.fork if prefix and host.fork else host.package
    path = REPO / 'requirements' / f'{prefix}{host.extra or "det"}.txt'
    for line in path.read_text(encoding='utf-8').splitlines():
        if re.match(rf'{re.escape(package)}[<>=~!]', line):
            return line.partition(';')[0].strip()
    raise ValueError(f'{path} has no line for {package}')


def anchor(host: Host) -> str:
    """Return the anchor of a host's heading."""
    return host.title.lower().replace(' ', '-')


def details() -> str:
    """Write a part per host: its calls of a loss, and the components that claim it by kind."""
    return '\n\n'.join(_detail(host) for host in HOSTS)


def _detail(host: Host) -> str:
    names: dict[str, list[str]] = {}
    for case in claims(host.name):
        if case.name not in names.setdefault(case.kind, []):
            names[case.kind].append(case.name)
    count = sum(map(len, names.values()))
    targets = '; '.join(text for target, text in TARGETS.items() if target in host.targets)
    calls = ['| heads | call |', '| --- | --- |']
    calls += [f'| {call.heads} | `{call}` |' for call in host.calls]
    lines = ['| kind | number | components |', '| --- | ---: | --- |']
    for kind in (kind for kind in KINDS if kind in names):
        listed = ', '.join(f'`{name}`' for name in sorted(names[kind]))
        lines.append(f'| {PLURALS.get(kind, kind + "s")} | {len(names[kind])} | {listed} |')
    return '\n'.join(
        [
            f'### {host.title}',
            '',
            *calls,
            '',
            *([f'Targets: {targets}.', ''] if targets else []),
            f'{count} components, in {len(claims(host.name))} settings:',
            '',
            *lines,
        ]
    )


def runs(rows: list[dict[str, Any]]) -> str:
    """Write one line per set of versions on which the tests were run.

    Args:
        rows: what run_host_pairs.py wrote, see there.
    """
    lines = [
        '| hosts | Python | torch | torchvision | OpenCV | NumPy | tests | passed | failed '
        '| skipped | minutes | date | note |',
        '| --- | --- | --- | --- | --- | --- | --- | ---: | ---: | ---: | ---: | --- | --- |',
    ]
    keys = ('python', 'torch', 'torchvision', 'opencv', 'numpy', 'tests')
    for row in sorted(rows, key=_by_versions, reverse=True):
        cells = [_family(row), *(str(row[key]) for key in keys)]
        cells += [f'{row[key]:,}' for key in ('passed', 'failed', 'skipped')]
        cells += [f'{row["seconds"] / 60:.0f}', row['date'], row['note'].replace('|', r'\|')]
        lines.append('| ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def _family(row: dict[str, Any]) -> str:
    """Name the family of a row, with the releases of its hosts."""
    found = [f'{module} {release}' for module, release in row['hosts'].items() if release]
    return f'{row["host"]}: {", ".join(found)}'


def _by_versions(row: dict[str, Any]) -> tuple[Any, ...]:
    """Order rows: stock before forks, then by the releases of torch, Python and OpenCV."""
    releases = [
        [int(number) for number in re.findall(r'\d+', str(row[key]))]
        for key in ('torch', 'python', 'opencv')
    ]
    return (row['host'] == 'stock', *releases)
