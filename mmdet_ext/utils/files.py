"""Files that are written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a path to write to, which is moved to ``path`` on success and removed on an error.

    The folder of ``path`` is made if absent.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'{path.name}.part')
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8."""
    with whole_file(path) as part:
        part.write_text(text, encoding='utf-8')


def write_json(path: Path, content: Any) -> None:
    """Write a json file."""
    write_text(path, json.dumps(content, indent=1) + '\n')
