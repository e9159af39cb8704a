"""Set up the development environment: a venv with pinned hosts, mmcv's operators and this package.

It needs the standard library alone. Every step can be repeated and keeps existing results, so an
interrupted set-up continues where it stopped, and a finished one is recognised at once. The
compiled mmcv wheel stays in the user's cache directory, for other clones.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from setup_common import (
    ROOT,
    SetupError,
    clean_environment,
    last_lines,
    report,
    run_pip,
    venv_python,
)
from setup_mmcv import (
    cache_root,
    cached_wheel,
    check_headers,
    find_compiler,
    provide_wheel,
    wheel_key,
)

CONSTRAINTS = ROOT / 'requirements' / 'constraints.txt'
REQUIREMENT_LISTS = ('build', 'runtime', 'det', 'cls', 'face', 'mim', 'test', 'dev', 'docs')
# After a change in one of these files, the environment is checked again.
STAMPED_FILES = (
    'tools/setup_env.py',
    'tools/setup_common.py',
    'tools/setup_mmcv.py',
    'setup.py',
    'pyproject.toml',
    'mmdet_ext/version.py',
)
STATE_FILE = '.mmdet_ext.json'
TORCH_DEPENDENCIES = ('filelock', 'fsspec', 'jinja2', 'mpmath', 'networkx', 'sympy')
MIN_PYTHON = (3, 10)
MIN_TORCH_MINOR = 4
VENV_GB = 6.0
TORCH_DOWNLOAD_GB = 2.5
BUILD_GB = 1.0

CHECK = """
import platform
from importlib.metadata import version
import mim, mmcv.ops, mmdet, mmdet_ext, mmengine, mmpretrain, torch, torchvision.ops
names = 'torch', 'torchvision', 'mmengine', 'mmcv', 'mmdet', 'mmpretrain', 'openmim', 'mmdet-ext'
print(', '.join(['Python ' + platform.python_version(), *(f'{n} {version(n)}' for n in names)]))
"""


def pinned(name: str, constraints: str) -> str:
    """Return the version of a package in the constraints."""
    found = re.search(rf'^{re.escape(name)}==([^\s;]+)', constraints, re.MULTILINE)
    if found is None:
        raise SetupError(f'{name} has no line in {CONSTRAINTS}: put it back')
    return found.group(1)


def torchvision_version(torch: str) -> str:
    """Return the version of torchvision for a version of torch, such as 0.26.0 for 2.11.0."""
    found = re.fullmatch(r'2\.(\d+)\.(\d+)(\+[\w.]+)?', torch)
    if found is None or int(found.group(1)) < MIN_TORCH_MINOR:
        raise SetupError(
            f'TORCH={torch}: expected a release from 2.{MIN_TORCH_MINOR}.0 on, '
            'written with three numbers, like TORCH=2.11.0'
        )
    minor, patch, local = found.groups()
    return f'0.{int(minor) + 15}.{patch}{local or ""}'


def effective_constraints(constraints: str, torch: str) -> str:
    """Adapt the constraints to the requested torch.

    `===` compares versions as text, so that a build with a local tag (`+cpu`) in a user's wheel
    folder does not count as the plain one. Another torch than the pinned one chooses the versions
    of its own dependencies.
    """
    dropped = ['torch', 'torchvision']
    if torch != pinned('torch', constraints):
        dropped += TORCH_DEPENDENCIES
    names = '|'.join(dropped)
    kept = re.sub(rf'^({names})==.*\n', '', constraints, flags=re.MULTILINE | re.IGNORECASE)
    return f'{kept}torch==={torch}\ntorchvision==={torchvision_version(torch)}\n'


def digest(torch: str) -> str:
    """Compute a fingerprint of everything that determines a finished environment."""
    parts = [torch, platform.python_version(), str(ROOT)]
    lists = [f'requirements/{name}.txt' for name in ('constraints', *REQUIREMENT_LISTS)]
    parts += [(ROOT / name).read_text(encoding='utf-8') for name in (*STAMPED_FILES, *lists)]
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


def preflight(venv: Path, mmcv: str, torch: str) -> None:
    """Raise if disk space, a compiler or headers are missing, before the long steps start."""
    needs = []
    if installed_torch(venv) != torch:
        needs += [(venv, VENV_GB), (Path(tempfile.gettempdir()), TORCH_DOWNLOAD_GB)]
    if cached_wheel(wheel_key(mmcv, torch, '*')) is None:
        find_compiler()
        check_headers()
        needs.append((cache_root(), BUILD_GB))
    check_disk(needs)


# The venv


def read_state(venv: Path) -> dict[str, str]:
    """Return the state that an earlier set-up wrote into the venv; empty for any other venv."""
    try:
        state = json.loads((venv / STATE_FILE).read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def write_state(venv: Path, state: dict[str, str]) -> None:
    """Write the state into the venv: the chosen torch and, at the end, the fingerprint."""
    partial = venv / (STATE_FILE + '.tmp')
    partial.write_text(json.dumps(state) + '\n', encoding='utf-8')
    os.replace(partial, venv / STATE_FILE)


def installed_torch(venv: Path) -> str | None:
    """Return the version of torch in a venv, without importing it."""
    found = sorted(venv.glob('lib/python3*/site-packages/torch-*.dist-info'))
    return found[0].name[len('torch-') : -len('.dist-info')] if found else None


def python_of(venv: Path) -> str | None:
    """Return the Python version of a venv, or None if its Python or pip does not work."""
    code = 'import pip, platform; print(platform.python_version())'
    try:
        done = subprocess.run([venv_python(venv), '-c', code], capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def discard_unfit(venv: Path) -> None:
    """Delete a venv of an earlier set-up if it is broken or has another Python.

    A folder that this set-up did not make is never deleted.
    """
    mine = (venv / STATE_FILE).is_file()
    if not mine and not (venv / 'pyvenv.cfg').is_file():
        raise SetupError(f'VENV={venv} holds other files: name a folder that is new, or a venv')
    version = python_of(venv)
    if version == platform.python_version():
        return
    reason = f'has Python {version}' if version else 'is incomplete'
    if not mine:
        raise SetupError(
            f'VENV={venv} {reason}, Python {platform.python_version()} is asked for. It was not '
            'made by this set-up, so it is left alone: delete it, or name another folder'
        )
    report(f'{venv} {reason}: making it anew with Python {platform.python_version()}')
    shutil.rmtree(venv)


def prepare_venv(venv: Path, state: dict[str, str]) -> None:
    """Make the venv, or keep an existing one."""
    if venv.is_dir() and any(venv.iterdir()):
        discard_unfit(venv)
    venv.mkdir(parents=True, exist_ok=True)
    write_state(venv, state)
    if (venv / 'pyvenv.cfg').is_file():
        return
    report(f'making {venv} with Python {platform.python_version()}')
    base = getattr(sys, '_base_executable', sys.executable)
    done = subprocess.run([base, '-m', 'venv', str(venv)], capture_output=True, text=True)
    if done.returncode:
        last = (done.stdout + done.stderr).strip()
        raise SetupError(
            f'{base} could not make a venv:\n{last}\nOn Debian and Ubuntu install '
            f'python3.{sys.version_info.minor}-venv'
        )


# The whole set-up


def check_installation(venv: Path, wheel: Path) -> None:
    """Import every host and the package in the venv, outside the source tree."""
    command = [str(venv_python(venv)), '-W', 'ignore', '-c', CHECK]
    env = clean_environment()
    done = subprocess.run(command, cwd=venv, env=env, capture_output=True, text=True)
    if done.returncode:
        raise SetupError(
            f'the environment does not work:\n{last_lines(done.stderr, 12)}\n'
            f'  If mmcv._ext is at fault, delete {wheel.parent} and run the same command again'
        )
    report(f'ready: {done.stdout.splitlines()[-1]}')


def install(venv: Path, mmcv: str, torch: str, constraints: str) -> Path:
    """Install everything, in the order that the builds need; return the wheel of mmcv."""
    file = venv / 'constraints.txt'
    file.write_text(effective_constraints(constraints, torch), encoding='utf-8')
    pins = ('-c', str(file))
    lists = [f'--requirement={ROOT}/requirements/{name}.txt' for name in REQUIREMENT_LISTS]
    report('pip, setuptools, wheel, ninja')
    run_pip(venv, 'install', lists[0], *pins)
    vision = torchvision_version(torch)
    before = installed_torch(venv)
    if before not in (None, torch):
        report(f'torch {before} is installed, {torch} is asked for: exchanging it')
    report(f'torch {torch}, torchvision {vision}' + (', some GB to load' if not before else ''))
    # torch comes first and alone, so that pip lists the existing releases if this one is absent.
    run_pip(venv, 'install', '--no-deps', f'torch==={torch}', f'torchvision==={vision}')
    run_pip(venv, 'install', 'torch', 'torchvision', 'numpy', *pins)
    wheel = provide_wheel(venv, mmcv, torch)
    run_pip(venv, 'install', '--force-reinstall', '--no-deps', str(wheel))
    report('mmengine, mmdet, mmpretrain, mim, and the tools for tests')
    run_pip(venv, 'install', *lists, *pins)
    report('mmdet_ext, editable')
    run_pip(venv, 'install', '--no-deps', '--no-build-isolation', '-e', str(ROOT))
    return wheel


def set_up(venv: Path, torch_choice: str) -> None:
    """Set up a venv with the pinned versions.

    Args:
        venv: Folder of the venv.
        torch_choice: Release of torch; empty keeps the earlier choice, or takes the pinned release.
    """
    check_python(sys.version_info[:2])
    constraints = CONSTRAINTS.read_text(encoding='utf-8')
    state = read_state(venv)
    choice = torch_choice or state.get('torch', '')
    torch = choice or pinned('torch', constraints)
    torchvision_version(torch)
    mmcv = pinned('mmcv', constraints)
    fingerprint = digest(torch)
    linked = (ROOT / 'mmdet_ext' / '.mim' / 'configs').is_dir()
    if state.get('done') == fingerprint and linked and venv_python(venv).exists():
        report(f'{venv} is up to date: Python {platform.python_version()}, torch {torch}')
        return
    preflight(venv, mmcv, torch)
    # The state has no fingerprint until the end, so that an interrupted set-up is not taken as
    # finished.
    prepare_venv(venv, {'torch': state.get('torch', '')})
    wheel = install(venv, mmcv, torch, constraints)
    check_installation(venv, wheel)
    write_state(venv, {'torch': choice, 'done': fingerprint})


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and set up; errors are written to stderr as one message."""
    parser = argparse.ArgumentParser(description='Set up the development environment.')
    parser.add_argument('--venv', default='.venv', help='folder of the venv (default: .venv)')
    parser.add_argument(
        '--torch', default='', help="torch release (default: the venv's choice, or the pinned one)"
    )
    args = parser.parse_args(argv)
    try:
        set_up(Path(args.venv).expanduser().absolute(), args.torch.strip())
    except (SetupError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('interrupted: run the same command again to go on', file=sys.stderr)
        return 130
    return 0


if __name__ == '__main__':
    sys.exit(main())
