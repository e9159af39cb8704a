"""The two families of OpenMMLab's packages: the stock one, and the maintained forks of OneDL.

A fork has the modules of the stock package that it continues: `mmengine` and `onedl-mmengine` both
hold `mmengine`. pip sees no conflict. Whichever it installs last overwrites the files of the other,
and uninstalling either removes files of both.
"""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

Family = Literal['stock', 'onedl']

#: Module -> its distributions in the stock family and among the forks, the usual one first; none
#: where no fork has it.
DISTRIBUTIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    'mmengine': (('mmengine', 'mmengine-lite'), ('onedl-mmengine',)),
    'mmcv': (('mmcv', 'mmcv-lite', 'mmcv-full'), ('onedl-mmcv',)),
    'mmdet': (('mmdet',), ('onedl-mmdetection',)),
    'mmpretrain': (('mmpretrain',), ('onedl-mmpretrain',)),
    'mmseg': (('mmsegmentation',), ('onedl-mmsegmentation',)),
    'mmpose': (('mmpose',), ()),
    'mmrotate': (('mmrotate',), ('onedl-mmrotate',)),
    'mim': (('openmim',), ('onedl-mim',)),
}

_FAMILIES: tuple[Family, Family] = ('stock', 'onedl')
_METADATA = re.compile(r'([^-]+)(?:-.*)?\.(?:dist|egg)-info', re.IGNORECASE)
_BY_NAME: dict[str, tuple[str, Family]] = {
    name: (module, family)
    for module, pair in DISTRIBUTIONS.items()
    for family, names in zip(_FAMILIES, pair, strict=True)
    for name in names
}


class MixedFamiliesError(RuntimeError):
    """Two packages of one module in one folder.

    No ImportError, which MMEngine hides when it imports the registry of a scope.
    """


@dataclass(frozen=True)
class Installed:
    """One installed distribution of a host.

    Args:
        module: Module that it holds.
        family: Family that it belongs to.
        name: Its name, as pip lists it.
        folder: Folder of `sys.path` that has its metadata.
    """

    module: str
    family: Family
    name: str
    folder: str


def installed_hosts(path: Iterable[str] | None = None) -> list[Installed]:
    """List the installed distributions of hosts, in the order in which Python finds them.

    Only names of folders are read, which takes about a millisecond. Packages without metadata, such
    as a source tree in PYTHONPATH, are not listed.

    Args:
        path: Folders to look in; `sys.path` by default.
    """
    folders = (os.path.realpath(folder) for folder in (sys.path if path is None else path))
    return [host for folder in dict.fromkeys(folders) for host in _hosts_in(folder)]


def installed_family(path: Iterable[str] | None = None) -> Family | None:
    """Return the family of the MMEngine that is imported, None if no metadata names one."""
    return next(
        (host.family for host in _imported(installed_hosts(path)) if host.module == 'mmengine'),
        None,
    )


def distribution_of(module: str) -> str:
    """Return the name of a host's package in the installed family.

    >>> distribution_of('mmdet') in ('mmdet', 'onedl-mmdetection')
    True
    """
    stock, forks = DISTRIBUTIONS[module]
    return forks[0] if forks and installed_family() == 'onedl' else stock[0]


def check_families(path: Iterable[str] | None = None) -> None:
    """Raise or warn if packages of both families are mixed.

    Hosts of both families beside each other are a warning: most work together, and those that do
    not (mmdet 3.3 and mmsegmentation 1.2 beside onedl-mmcv) say so when they are imported.

    Args:
        path: Folders to look in; `sys.path` by default.

    Raises:
        MixedFamiliesError: If two distributions with the same module are installed in the folder
            that it is imported from.
    """
    hosts = installed_hosts(path)
    imported = _imported(hosts)
    for host in imported:
        for other in hosts:
            if (other.module, other.folder) == (
                host.module,
                host.folder,
            ) and other.family != host.family:
                raise MixedFamiliesError(
                    _overwritten(host.module, sorted((host.name, other.name)), host.folder)
                )
    used = [host for host in imported if host.module != 'mim']
    if len({host.family for host in used}) > 1:
        warnings.warn(_side_by_side(used), stacklevel=2)


def _hosts_in(folder: str) -> Iterator[Installed]:
    """Yield the distributions of hosts whose metadata lies in a folder."""
    try:
        entries = sorted(os.listdir(folder))
    except OSError:  # a zip file, or a folder that does not exist
        return
    for entry in entries:
        found = _METADATA.fullmatch(entry)
        if found is None:
            continue
        name = re.sub(r'[-_.]+', '-', found[1]).lower()
        # Wheels of onedl-mmcv for one torch and CUDA have both in their name.
        known = _BY_NAME.get('onedl-mmcv' if name.startswith('onedl-mmcv-') else name)
        if known is not None:
            yield Installed(*known, name, folder)


def _imported(hosts: Iterable[Installed]) -> list[Installed]:
    """Return the distribution of each module that Python finds first."""
    first: dict[str, Installed] = {}
    for host in hosts:
        first.setdefault(host.module, host)
    return list(first.values())


def _overwritten(module: str, names: list[str], folder: str) -> str:
    """Explain two distributions of one module in one folder."""
    return (
        f'{" and ".join(names)} are both installed in {folder}. Both hold the module {module}: '
        'whichever was installed last has overwritten files of the other. OpenMMLab has two '
        'families of packages, the stock one and the maintained forks (onedl-*), and an '
        'environment can hold one of them. Uninstalling one removes files of the other too, so '
        f'uninstall both, `pip uninstall {" ".join(names)}`, and install the one of your family: '
        f'`pip install {names[0]}`, or `pip install {names[1]}`'
    )


def _side_by_side(hosts: list[Installed]) -> str:
    """Explain hosts of both families in one environment."""
    stock, forks = (
        ', '.join(sorted(host.name for host in hosts if host.family == family))
        for family in _FAMILIES
    )
    return (
        f'hosts of both families are installed: {stock} of the stock family, and {forks} of the '
        'maintained forks (onedl-*). They are made and tested apart; stock mmdet, for one, refuses '
        'onedl-mmcv. Uninstall those of one family, and install those of the other instead'
    )
