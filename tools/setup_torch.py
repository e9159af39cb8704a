"""Choice of the torchvision that belongs to a torch, by what the package index offers.

Until 0.29.0 each torchvision named the one torch it was compiled for. Since 0.29.1 it is built
against torch's stable interface and names the oldest torch instead, so that arithmetic on version
numbers no longer tells which releases fit. The requirement that a torchvision states decides.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

from setup_common import ROOT, SetupError, clean_environment, venv_python

MIN_TORCH_MINOR = 4
#: torch 2.4 came with torchvision 0.19, and each minor release since then with the next one.
MINOR_DIFFERENCE = 15
#: Releases before the torch's own that are looked at, for a torchvision that admits newer ones.
OLDER_SERIES = 2

Version = tuple[int, ...]


def numbers(version: str) -> Version:
    """Return the numbers of a release, without its local tag.

    >>> numbers('2.13.0+cpu')
    (2, 13, 0)
    """
    return tuple(int(part) for part in version.partition('+')[0].split('.'))


def check_torch(torch: str) -> tuple[int, int, str]:
    """Return minor, patch and local tag of a release of torch such as `2.13.0+cpu`.

    Raises:
        SetupError: For anything that is no full release from 2.4.0 on.
    """
    found = re.fullmatch(r'2\.(\d+)\.(\d+)(\+[\w.]+)?', torch)
    if found is None or int(found.group(1)) < MIN_TORCH_MINOR:
        raise SetupError(
            f'TORCH={torch}: expected a release from 2.{MIN_TORCH_MINOR}.0 on, '
            'written with three numbers, like TORCH=2.11.0'
        )
    return int(found.group(1)), int(found.group(2)), found.group(3) or ''


def admits(requirements: list[str], torch: str) -> bool:
    """Return whether the requirements of a torchvision admit a torch.

    >>> admits(['numpy', 'torch (>=2.14.0)'], '2.15.0'), admits(['torch==2.13.0'], '2.14.1')
    (True, False)
    """
    wanted = numbers(torch)
    for requirement in requirements:
        found = re.fullmatch(r'torch\s*\(?([^;)]*)\)?\s*(;.*)?', requirement)
        if found is None:
            continue
        for part in filter(None, (text.strip() for text in found.group(1).split(','))):
            clause = re.fullmatch(r'(==|>=|<=|!=|>|<)\s*(\d+(?:\.\d+)*)(\+[\w.]+)?', part)
            if clause is None:
                return False
            operator, release = clause.group(1), numbers(clause.group(2))
            width = max(len(release), len(wanted))
            left, right = (v + (0,) * (width - len(v)) for v in (wanted, release))
            holds = {
                '==': left == right,
                '!=': left != right,
                '>=': left >= right,
                '<=': left <= right,
                '>': left > right,
                '<': left < right,
            }
            if not holds[operator]:
                return False
        return True
    return False


def ask_pip(venv: Path, *arguments: str) -> str | None:
    """Return what a question to pip prints, None if pip has no answer."""
    command = [str(venv_python(venv)), '-m', 'pip', *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=clean_environment(), capture_output=True, text=True, errors='replace'
    )
    return done.stdout if done.returncode == 0 else None


def offered(venv: Path, name: str) -> list[str]:
    """List the final releases of a package that the index offers to a venv, newest first."""
    answer = ask_pip(venv, 'index', 'versions', name) or ''
    found = re.search(r'^Available versions: (.*)$', answer, re.MULTILINE)
    releases = found.group(1).split(', ') if found else []
    return sorted((v for v in releases if re.fullmatch(r'[\d.]+', v)), key=numbers, reverse=True)


def stated_requirements(venv: Path, torchvision: str) -> list[str]:
    """List the requirements that a release of torchvision states; none if it cannot be had."""
    question = ('install', '--dry-run', '--ignore-installed', '--no-deps', '-q', '--report', '-')
    answer = ask_pip(venv, *question, f'torchvision==={torchvision}')
    if answer is None:
        return []
    items = json.loads(answer[answer.index('{') :])['install']
    return list(items[0]['metadata'].get('requires_dist', []))


def choose_torchvision(venv: Path, torch: str) -> str:
    """Return the torchvision for a torch: its own release if there is one, else one that admits it.

    Args:
        venv: Folder of a venv, whose pip is asked.
        torch: Release of torch.

    Raises:
        SetupError: If the index offers no torchvision that admits this torch; the message names
            the newest pair.
    """
    minor, patch, local = check_torch(torch)
    series = minor + MINOR_DIFFERENCE
    twin = f'0.{series}.{patch}'
    releases = offered(venv, 'torchvision')
    if not releases:
        raise SetupError(
            'the package index lists no torchvision: check the network, PIP_INDEX_URL and proxies'
        )
    near = [v for v in releases if series - OLDER_SERIES <= numbers(v)[1] <= series]
    for version in sorted(near, key=lambda v: v != twin):  # the others stay newest first
        if admits(stated_requirements(venv, version + local), torch):
            return version + local
    raise SetupError(
        f'TORCH={torch}: the package index offers no torchvision for it (0.{series} would be its '
        f'own; the newest there is {releases[0]}).{_newest_pair(venv, releases)}'
    )


def _newest_pair(venv: Path, releases: list[str]) -> str:
    """Name the newest torch that one of the newest releases of torchvision admits."""
    torches = offered(venv, 'torch')
    for vision in releases[:3]:
        requirements = stated_requirements(venv, vision)
        for torch in torches:
            if admits(requirements, torch):
                return f' The newest pair: TORCH={torch}, with torchvision {vision}'
    return ''
