"""Folders of made sets: a set is written whole, and only an earlier set of its kind is replaced."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path


def check_target(
    out_dir: Path, overwrite: bool, start: tuple[str, str], error: type[ValueError]
) -> None:
    """Raise unless a set may be written into a folder.

    Args:
        out_dir: The folder.
        overwrite: Whether an earlier set may be replaced.
        start: Name of the annotation file of an earlier set, and its description.
        error: Class of the error.
    """
    if not out_dir.exists() or (out_dir.is_dir() and not any(out_dir.iterdir())):
        return
    name, description = start
    what = f'an earlier set of {description.removeprefix("synthetic ")}'
    if not overwrite:
        raise error(
            f'{out_dir} is there already and not an empty folder; give another, or '
            f'overwrite=True (--overwrite) if it holds {what}'
        )
    path = out_dir / 'annotations' / name
    begin = f'{{"info": {{"description": "{description}'.encode()
    if not path.is_file() or not path.read_bytes().startswith(begin):
        raise error(
            f'{out_dir} holds something else than {what}, so it is not overwritten; '
            'give another folder'
        )


def move_in(scratch: Path, out_dir: Path, names: Sequence[str]) -> None:
    """Move the parts of a finished set to their place, instead of those of an earlier one."""
    out_dir.mkdir(exist_ok=True)
    for name in names:
        if (out_dir / name).is_dir():
            shutil.rmtree(out_dir / name)
        else:
            (out_dir / name).unlink(missing_ok=True)
        if (scratch / name).exists():
            os.replace(scratch / name, out_dir / name)
