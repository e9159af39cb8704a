"""Set up the development environment: a venv with pinned hosts, mmcv's operators and this package.

It needs the standard library alone. Every step can be repeated and keeps existing results, so an
interrupted set-up continues where it stopped, and a finished one is recognised at once. The
compiled mmcv wheel stays in the user's cache directory, for other clones.
"""

from __future__ import annotations

import argparse
import hashlib
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from setup_common import (
    ROOT,
    SetupError,
    clean_environment,
    last_lines,
    report,
    run_pip,
    venv_python,
)
from setup_compiler import check_headers, find_compiler, release_standard
from setup_hosts import (
    ALL_HOSTS,
    EXTRA_HOSTS,
    FAMILIES,
    Family,
    choose_hosts,
    installed_of,
    read_family,
    read_hosts,
)
from setup_mmcv import Operators, cache_root, cached_wheel, provide_wheel, wheel_key
from setup_torch import check_torch, choose_torchvision
from setup_venv import installed_torch, prepare_venv, read_state, write_state

CONSTRAINTS = ROOT / 'requirements' / 'constraints.txt'
# After a change in one of these files, the environment is checked again.
STAMPED_FILES = (
    'tools/setup_env.py',
    'tools/setup_common.py',
    'tools/setup_compiler.py',
    'tools/setup_hosts.py',
    'tools/setup_mmcv.py',
    'tools/setup_sdist.py',
    'tools/setup_torch.py',
    'tools/setup_units.py',
    'tools/setup_venv.py',
    'setup.py',
    'pyproject.toml',
    'mmdet_ext/version.py',
)
TORCH_DEPENDENCIES = ('filelock', 'fsspec', 'jinja2', 'mpmath', 'networkx', 'sympy')
MIN_PYTHON = (3, 10)
VENV_GB = 6.0
TORCH_DOWNLOAD_GB = 2.5
BUILD_GB = 1.0

CHECK = """
import importlib, platform, sys
from importlib.metadata import version
modules, names = (words.split(',') for words in sys.argv[1:])
for module in ('torch', 'torchvision.ops', 'mmcv.ops', 'mmdet_ext', *modules):
    importlib.import_module(module)
print(', '.join(['Python ' + platform.python_version(), *(f'{n} {version(n)}' for n in names)]))
"""


@dataclass(frozen=True)
class Choice:
    """Content that a venv is to have.

    Args:
        torch: Release of torch; empty for the pinned one.
        host: Name of a family of hosts; empty for the stock one.
        hosts: Hosts beyond those of every environment, keys of `EXTRA_HOSTS`.
        pins: Requirements such as `opencv-python==4.14.0.94`, instead of the constraints' lines.
    """

    torch: str = ''
    host: str = ''
    hosts: tuple[str, ...] = ()
    pins: tuple[str, ...] = ()

    @property
    def family(self) -> Family:
        """The family of hosts."""
        return read_family(self.host)


def pinned(name: str, constraints: str) -> str:
    """Return the version of a package in the constraints."""
    found = re.search(rf'^{re.escape(name)}==([^\s;]+)', constraints, re.MULTILINE)
    if found is None:
        raise SetupError(f'{name} has no line in {CONSTRAINTS}: put it back')
    return found.group(1)


def chosen_operators(family: Family, constraints: str) -> Operators:
    """Return a family's mmcv with its pinned version."""
    lines = '\n'.join((*family.pins(), constraints))
    return Operators(family.operators, pinned(family.operators, lines))


def effective_constraints(
    constraints: str, torch: str, torchvision: str, pins: Sequence[str] = ()
) -> str:
    """Adapt the constraints to the requested torch and to other pins.

    `===` compares versions as text, so that a build with a local tag (`+cpu`) in a user's wheel
    folder does not count as the plain one. Another torch than the pinned one chooses the versions
    of its own dependencies.
    """
    dropped = ['torch', 'torchvision', *(pin.partition('==')[0] for pin in pins)]
    if torch != pinned('torch', constraints):
        dropped += TORCH_DEPENDENCIES
    names = '|'.join(re.escape(name) for name in dropped)
    kept = re.sub(rf'^({names})==.*\n', '', constraints, flags=re.MULTILINE | re.IGNORECASE)
    lines = [f'torch==={torch}', f'torchvision==={torchvision}', *pins]
    return kept + ''.join(f'{line}\n' for line in lines)


def check_pin(pin: str) -> str:
    """Return a pin such as `opencv-python==4.14.0.94`, or raise SetupError."""
    found = re.fullmatch(r'([A-Za-z0-9._-]+)==[\w.]+', pin)
    if found is None or found.group(1) in ('torch', 'torchvision'):
        raise SetupError(
            f'--pin {pin}: expected NAME==VERSION, of a package other than torch (TORCH=...)'
        )
    return pin


def digest(torch: str, choice: Choice) -> str:
    """Compute a fingerprint of everything that determines a finished environment."""
    parts = [torch, choice.host, *choice.hosts, *choice.pins, platform.python_version(), str(ROOT)]
    parts += choice.family.pins()
    lists = choice.family.lists(choice.hosts)
    files = [f'requirements/{name}.txt' for name in ('constraints', *lists)]
    parts += [(ROOT / name).read_text(encoding='utf-8') for name in (*STAMPED_FILES, *files)]
    return hashlib.sha256('\0'.join(parts).encode()).hexdigest()


# Checks before any change


def check_python(version: tuple[int, int]) -> None:
    """Refuse a Python that the hosts do not support."""
    if version < MIN_PYTHON:
        raise SetupError(
            f'Python {version[0]}.{version[1]} ({sys.executable}) is too old: 3.10 or newer is '
            'needed. Install one and name it: make env PYTHON=python3.11'
        )


def check_disk(needs: list[tuple[Path, float]]) -> None:
    """Raise unless each file system has enough free space.

    Args:
        needs: Pairs of a path and the space needed there, in GB.
    """
    wanted: dict[int, float] = {}
    for path, gigabytes in needs:
        while not path.exists():
            path = path.parent
        device = path.stat().st_dev
        wanted[device] = wanted.get(device, 0.0) + gigabytes
        free = shutil.disk_usage(path).free / 1e9
        if free < wanted[device]:
            raise SetupError(
                f'not enough disk space at {path}: {free:.1f} GB free, about '
                f'{wanted[device]:.1f} GB needed. Free some, or move the environment '
                '(make env VENV=...), the cache (MMDET_EXT_CACHE) or temporary files (TMPDIR)'
            )


def preflight(venv: Path, operators: Operators, torch: str) -> None:
    """Raise if disk space, a compiler or headers are missing, before the long steps start."""
    needs = []
    if installed_torch(venv) != torch:
        needs += [(venv, VENV_GB), (Path(tempfile.gettempdir()), TORCH_DOWNLOAD_GB)]
    if cached_wheel(wheel_key(operators, torch, '*')) is None:
        find_compiler(release_standard(torch), torch)
        check_headers()
        needs.append((cache_root(), BUILD_GB))
    check_disk(needs)


# The whole set-up


def remove_other_families(venv: Path, family: Family) -> None:
    """Uninstall the hosts of the other families, whose modules have the same names.

    Where a module is there twice, the family's own distribution goes too: it would lose its files,
    and pip would still list it as installed.
    """
    own = installed_of(venv, family)
    for other in FAMILIES.values():
        found = installed_of(venv, other) if other is not family else []
        if found:
            report(
                f'{venv} holds hosts of {other.name}, {family.name} is asked for: exchanging them'
            )
            held = [module for module, name in other.distributions.items() if name in found]
            twins = [family.distributions.get(module) for module in held]
            run_pip(venv, 'uninstall', '-y', *found, *(name for name in own if name in twins))


def check_installation(venv: Path, wheel: Path, choice: Choice) -> None:
    """Import every host and the package in the venv, outside the source tree."""
    extra = [EXTRA_HOSTS[name] for name in choice.hosts]
    left_out = set(EXTRA_HOSTS.values()) - set(extra)
    hosts = {m: d for m, d in choice.family.distributions.items() if m not in left_out}
    names = ('torch', 'torchvision', *hosts.values(), 'mmdet-ext')
    command = [str(venv_python(venv)), '-W', 'ignore', '-c', CHECK, ','.join(hosts)]
    env = clean_environment()
    command.append(','.join(names))
    done = subprocess.run(command, cwd=venv, env=env, capture_output=True, text=True)
    if done.returncode:
        raise SetupError(
            f'the environment does not work:\n{last_lines(done.stderr, 12)}\n'
            f'  If mmcv._ext is at fault, delete {wheel.parent} and run the same command again'
        )
    report(f'ready: {done.stdout.splitlines()[-1]}')


def install_torch(venv: Path, torch: str, constraints: str, pins: Sequence[str]) -> Path:
    """Install torch and its torchvision; return the file of constraints that holds for the rest."""
    vision = (
        pinned('torchvision', constraints)
        if torch == pinned('torch', constraints)
        else choose_torchvision(venv, torch)
    )
    file = venv / 'constraints.txt'
    file.write_text(effective_constraints(constraints, torch, vision, pins), encoding='utf-8')
    before = installed_torch(venv)
    if before not in (None, torch):
        report(f'torch {before} is installed, {torch} is asked for: exchanging it')
    report(f'torch {torch}, torchvision {vision}' + (', some GB to load' if not before else ''))
    # torch comes first and alone, so that pip lists the existing releases if this one is absent.
    run_pip(venv, 'install', '--no-deps', f'torch==={torch}', f'torchvision==={vision}')
    run_pip(venv, 'install', 'torch', 'torchvision', 'numpy', '-c', str(file))
    return file


def install_pose(venv: Path, pins: Sequence[str]) -> None:
    """Install MMPose and what it imports.

    xtcocotools is built, because its ready wheel is of NumPy 1; its build needs Cython and the
    NumPy that it will run with. chumpy, which MMPose names and never imports, is not installed.
    """
    report('mmpose, and xtcocotools from its source')
    run_pip(venv, 'install', 'cython', *pins)
    source = ('--no-build-isolation', '--no-binary', 'xtcocotools')
    run_pip(venv, 'install', '--no-deps', *source, '-r', f'{ROOT}/requirements/pose.txt', *pins)


def install(venv: Path, torch: str, constraints: str, choice: Choice) -> Path:
    """Install everything, in the order that the builds need; return the wheel of mmcv."""
    family = choice.family
    # MMPose comes last and in its own way.
    names = family.lists([host for host in choice.hosts if host != 'pose'])
    lists = [f'--requirement={ROOT}/requirements/{name}.txt' for name in names]
    report('pip, setuptools, wheel, ninja')
    run_pip(venv, 'install', lists[0], '-c', str(CONSTRAINTS))
    pins = ('-c', str(install_torch(venv, torch, constraints, (*family.pins(), *choice.pins))))
    remove_other_families(venv, family)
    wheel = provide_wheel(venv, chosen_operators(family, constraints), torch)
    run_pip(venv, 'install', '--force-reinstall', '--no-deps', str(wheel))
    hosts = [name for name in family.distributions.values() if name != family.operators]
    report(f'{", ".join(hosts[:4])}, and the tools for tests')
    run_pip(venv, 'install', *lists, *pins)
    if 'pose' in choice.hosts:
        install_pose(venv, pins)
    report('mmdet_ext, editable')
    run_pip(venv, 'install', '--no-deps', '--no-build-isolation', '-e', str(ROOT))
    return wheel


def complete(asked: Choice, state: dict[str, Any]) -> Choice:
    """Take from an earlier set-up what is not asked for now; hosts are added to those it has."""
    family = read_family(asked.host or state.get('host', ''))
    return Choice(
        torch=asked.torch or state.get('torch', ''),
        host=family.name,
        hosts=choose_hosts(asked.hosts, state.get('hosts', ()), family),
        pins=asked.pins or tuple(state.get('pins', ())),
    )


def set_up(venv: Path, asked: Choice) -> None:
    """Set up a venv with the pinned versions.

    Args:
        venv: Folder of the venv.
        asked: What is asked for; what is empty keeps the earlier choice, or is the default.
    """
    check_python(sys.version_info[:2])
    constraints = CONSTRAINTS.read_text(encoding='utf-8')
    state = read_state(venv)
    choice = complete(asked, state)
    torch = choice.torch or pinned('torch', constraints)
    check_torch(torch)
    fingerprint = digest(torch, choice)
    linked = (ROOT / 'mmdet_ext' / '.mim' / 'configs').is_dir()
    if state.get('done') == fingerprint and linked and venv_python(venv).exists():
        report(f'{venv} is up to date: Python {platform.python_version()}, torch {torch}')
        return
    preflight(venv, chosen_operators(choice.family, constraints), torch)
    # The state has no fingerprint until the end, so that an interrupted set-up is not taken as
    # finished.
    kept: dict[str, Any] = {
        name: state[name] for name in ('torch', 'host', 'hosts', 'pins', 'adopted') if name in state
    }
    prepare_venv(venv, kept)
    wheel = install(venv, torch, constraints, choice)
    check_installation(venv, wheel, choice)
    write_state(venv, {**read_state(venv), **asdict(choice), 'done': fingerprint})


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and set up; errors are written to stderr as one message."""
    parser = argparse.ArgumentParser(description='Set up the development environment.')
    parser.add_argument('--venv', default='.venv', help='folder of the venv (default: .venv)')
    parser.add_argument(
        '--torch', default='', help="torch release (default: the venv's choice, or the pinned one)"
    )
    parser.add_argument(
        '--host', default='', help=f'family of hosts: {", ".join(FAMILIES)} (default: stock)'
    )
    parser.add_argument(
        '--hosts', default='', help=f'hosts to add: any of {", ".join((*EXTRA_HOSTS, ALL_HOSTS))}'
    )
    parser.add_argument(
        '--pin',
        action='append',
        default=[],
        help='NAME==VERSION instead of the line of requirements/constraints.txt; can be repeated',
    )
    args = parser.parse_args(argv)
    try:
        asked = Choice(
            torch=args.torch.strip(),
            host=read_family(args.host.strip()).name if args.host.strip() else '',
            hosts=read_hosts(args.hosts),
            pins=tuple(check_pin(pin) for pin in args.pin),
        )
        set_up(Path(args.venv).expanduser().absolute(), asked)
    except (SetupError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('interrupted: run the same command again to go on', file=sys.stderr)
        return 130
    return 0


if __name__ == '__main__':
    sys.exit(main())
