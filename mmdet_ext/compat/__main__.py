"""Run a Python file with safe loading: ``python -m mmdet_ext.compat FILE ARGUMENTS``.

Some tools of the hosts open a checkpoint and no config, such as mmdet's ``publish_model.py`` and
``image_demo.py`` with weights alone. Nothing in them can import `mmdet_ext.compat`.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path


def main(words: list[str]) -> None:
    """Run the file that the first word names, with the others as its arguments."""
    if not words or not Path(words[0]).is_file():
        found = f'there is no file {words[0]!r}' if words else 'no file is given'
        print(
            f'{found}: python -m mmdet_ext.compat FILE ARGUMENTS runs a Python file with the '
            'checkpoints of MMEngine loading safely',
            file=sys.stderr,
        )
        raise SystemExit(2)
    # As `python FILE ARGUMENTS` has them.
    sys.argv[:] = words
    sys.path[0] = str(Path(words[0]).resolve().parent)
    runpy.run_path(words[0], run_name='__main__')


if __name__ == '__main__':
    main(sys.argv[1:])
