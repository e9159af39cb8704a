"""Test a checkpoint: `mim test mmdet_ext <config> --checkpoint <file>` runs this file.

It runs mmdet's test script, with all options of that script.
"""

from __future__ import annotations

import sys

from train import run_mmdet_script

if __name__ == '__main__':
    sys.exit(run_mmdet_script('test.py'))
