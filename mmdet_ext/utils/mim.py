"""Runs of ``mim train`` and ``mim test``, as a user would type them."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

from mmdet_ext.utils.families import distribution_of, installed_family


class MimError(RuntimeError):
    """Failure of a mim command; the message gives the command and its exit code."""


def run_mim(
    command: str,
    config: Path,
    *arguments: str | Path,
    cwd: Path | None = None,
    host: str = 'mmdet',
) -> None:
    """Run ``mim COMMAND HOST CONFIG ...`` with this interpreter; its output is shown.

    Args:
        command: 'train' or 'test'.
        config: Config file.
        *arguments: Further words of the command line.
        cwd: Folder to run in; paths below it are shown relative to it.
        host: Module whose scripts train and test.

    Raises:
        MimError: If the command fails.
    """
    folder = cwd or Path.cwd()
    paths = [shown(word, folder) for word in (config, *arguments)]
    words = ['mim', command, mim_name(host), *paths]
    print(f'\n$ {shlex.join(words)}', flush=True)
    # pkg_resources warns at each start of mim, which a user cannot change.
    python = [sys.executable, '-W', 'ignore:pkg_resources is deprecated', '-m']
    code = subprocess.run([*python, *words], cwd=folder, check=False).returncode
    if code:
        raise MimError(f'`{shlex.join(words)}` ended with exit code {code}; see its last lines')


def mim_name(host: str) -> str:
    """Return the name by which mim knows a host: OneDL's knows the forks by their own names.

    >>> mim_name('mmdet') in ('mmdet', 'onedl-mmdetection')
    True
    """
    return distribution_of(host) if installed_family() == 'onedl' else host


def shown(argument: str | Path, folder: Path) -> str:
    """Return a path as a user would type it in ``folder``, and any other argument unchanged."""
    if isinstance(argument, Path) and argument.is_relative_to(folder):
        return str(argument.relative_to(folder))
    return str(argument)
