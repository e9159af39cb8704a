"""Train with a config: `mim train mmdet_ext <config>` runs this file.

It runs mmdet's training script, with all options of that script.
"""

from __future__ import annotations

import importlib.util
import runpy
import sys
from pathlib import Path


def run_mmdet_script(name: str) -> int:
    """Run `train.py` or `test.py` of the installed mmdet with the arguments of this process.

    Returns:
        0, or 2 if mmdet or its script is missing.
    """
    spec = importlib.util.find_spec('mmdet')
    if spec is None or spec.origin is None:
        print(
            "error: mmdet is not installed: pip install 'mmdet-ext[det]', or, for the maintained "
            "forks, 'mmdet-ext[onedl-det]'",
            file=sys.stderr,
        )
        return 2
    script = Path(spec.origin).parent / '.mim' / 'tools' / name
    if not script.is_file():
        print(f'error: {script} is missing: install mmdet again', file=sys.stderr)
        return 2
    runpy.run_path(str(script), run_name='__main__')
    return 0


if __name__ == '__main__':
    sys.exit(run_mmdet_script('train.py'))
