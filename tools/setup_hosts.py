"""The two families of OpenMMLab's packages, and the lists of requirements that install them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from setup_common import ROOT, SetupError


@dataclass(frozen=True)
class Family:
    """One family of packages; both have the same modules, so an environment holds one of them.

    Args:
        name: Value of HOST.
        distributions: Distribution of each module.
        prefix: Prefix of the family's lists in `requirements/`.
    """

    name: str
    distributions: dict[str, str]
    prefix: str

    @property
    def operators(self) -> str:
        """Distribution whose operators are compiled."""
        return self.distributions['mmcv']

    def pins(self) -> tuple[str, ...]:
        """Return the pins of `<name>-constraints.txt`, instead of those of the common list."""
        file = ROOT / 'requirements' / f'{self.name}-constraints.txt'
        text = file.read_text(encoding='utf-8') if file.is_file() else ''
        return tuple(line for line in text.splitlines() if line and not line.startswith('#'))

    def lists(self, hosts: Sequence[str]) -> tuple[str, ...]:
        """Return the names of the lists in `requirements/`, in the order of installation."""
        own = tuple(self.prefix + name for name in ('det', 'cls', 'mim', *hosts))
        ours = ('face', 'deploy', 'eval', 'gallery', 'page', 'test', 'dev', 'docs')
        return ('build', 'runtime', *own, *ours)


STOCK = Family(
    'stock',
    {
        'mmengine': 'mmengine',
        'mmcv': 'mmcv',
        'mmdet': 'mmdet',
        'mmpretrain': 'mmpretrain',
        'mim': 'openmim',
        'mmseg': 'mmsegmentation',
        'mmpose': 'mmpose',
    },
    '',
)
ONEDL = Family(
    'onedl',
    {
        'mmengine': 'onedl-mmengine',
        'mmcv': 'onedl-mmcv',
        'mmdet': 'onedl-mmdetection',
        'mmpretrain': 'onedl-mmpretrain',
        'mim': 'onedl-mim',
        'mmseg': 'onedl-mmsegmentation',
    },
    'onedl-',
)
FAMILIES = {family.name: family for family in (STOCK, ONEDL)}

#: What HOSTS may add to the hosts that every environment has, and the module of each.
EXTRA_HOSTS = {'pose': 'mmpose', 'seg': 'mmseg'}
#: Value of HOSTS that adds every host of the family.
ALL_HOSTS = 'all'


def read_family(name: str) -> Family:
    """Return the family of a name; the empty name is the stock one."""
    if (name or STOCK.name) not in FAMILIES:
        raise SetupError(f'HOST={name}: expected one of {", ".join(FAMILIES)}')
    return FAMILIES[name or STOCK.name]


def read_hosts(text: str) -> tuple[str, ...]:
    """Read a list such as `pose, seg`, separated by commas or blanks; sorted, each once."""
    names = sorted(set(re.split(r'[\s,]+', text.strip())) - {''})
    known = (*EXTRA_HOSTS, ALL_HOSTS)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SetupError(
            f'HOSTS={text}: {", ".join(unknown)} unknown; it adds any of {", ".join(known)}'
        )
    return tuple(names)


def choose_hosts(asked: Sequence[str], kept: Sequence[str], family: Family) -> tuple[str, ...]:
    """Choose the hosts to add: those that are asked for, and those of an earlier set-up.

    Args:
        asked: names, as `read_hosts` gives them.
        kept: names that the environment has; those that the family lacks are dropped.
        family: the family of hosts.

    Raises:
        SetupError: for a host that is asked for by its name, and that the family lacks.
    """
    offered = [name for name, module in EXTRA_HOSTS.items() if module in family.distributions]
    lacking = [name for name in asked if name not in (*offered, ALL_HOSTS)]
    if lacking:
        modules = ', '.join(EXTRA_HOSTS[name] for name in lacking)
        raise SetupError(
            f'HOSTS={",".join(asked)}: {family.name} has no {modules}; with HOST={family.name} '
            f'HOSTS adds any of {", ".join((*offered, ALL_HOSTS))}'
        )
    wanted = offered if ALL_HOSTS in asked else [*asked, *kept]
    return tuple(name for name in sorted(set(wanted)) if name in offered)


def installed_of(venv: Path, family: Family) -> list[str]:
    """List the distributions of a family that a venv holds, without importing them."""
    folders = venv.glob('lib/python3*/site-packages/*.dist-info')
    names = {folder.name.partition('-')[0].replace('_', '-').lower() for folder in folders}
    return [name for name in family.distributions.values() if name in names]
