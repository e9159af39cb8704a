"""Make a synthetic set of jointed figures: runs tools/data/make_stick_figures.py.

python tools/make_stick_figures.py OUT --train N --val N --seed S --size WIDTH HEIGHT
"""

from __future__ import annotations

import runpy
from pathlib import Path

if __name__ == '__main__':
    runpy.run_path(
        str(Path(__file__).parent / 'data' / 'make_stick_figures.py'), run_name='__main__'
    )
