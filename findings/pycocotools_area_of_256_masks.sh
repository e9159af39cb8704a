#!/usr/bin/env bash
# pycocotools.mask.area of a list fails or overflows as soon as the list holds 256 masks.
#
# Versions:  pycocotools 2.0.11, numpy 2.4.6
# Input:     the run lengths of one 4 x 4 mask, in lists of 255 and of 256, and one by one.
# Seen:      255 masks: 255 areas. 256 masks: OverflowError, "Python integer 256 out of bounds for
#            uint8". One by one, any number works.
# Matters:   code that takes the areas of all masks of a data set in one call works on a small sample
#            and stops on the data. pycocotools itself takes them one by one.
# Fails if this changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pycocotools==2.0.11 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import numpy as np
from pycocotools import mask

one = mask.encode(np.asfortranarray(np.ones((4, 4), np.uint8)))


def areas(count):
    try:
        found = mask.area([one] * count)
        return len(found), int(found[-1])
    except OverflowError as error:
        return f'OverflowError: {error}'


seen = areas(255), areas(256), [int(mask.area(one)) for _ in range(256)] == [16] * 256
for line in zip(('255 masks:', '256 masks:', '256, one by one, all 16:'), seen):
    print(*line)
if seen != ((255, 16), 'OverflowError: Python integer 256 out of bounds for uint8', True):
    sys.exit('the behaviour has changed')
print('as described')
PYTHON
