#!/usr/bin/env bash
# OpenCV 5.0.0 rounds ties of a nearest-neighbour warpAffine to even: every other column of a mask is lost.
#
# Versions:  opencv-python-headless 4.14.0.94 and 5.0.0.93, numpy 2.2.6
# Input:     a label map of 8 x 8 px whose columns have the labels 0 to 7, warped with INTER_NEAREST: moved
#            by half a pixel, and drawn twice as wide.
# Seen:      first row      moved                 twice as wide
#              4.14.0       0 1 2 3 4 5 6 7       0 1 1 2 2 3 3 4 4 5 5 6 6 7 7 7
#              5.0.0        0 0 2 2 4 4 6 6       0 0 1 2 2 2 3 4 4 4 5 6 6 6 7 7
#            remap gives 0 2 2 4 4 6 6 7 for the move (the other way) in both releases, and resize
#            0 0 1 1 2 2 3 3 ... for the double width in both.
# Matters:   random rotations, shears and scalings of label maps are nearest-neighbour warps, and those by
#            whole or half factors are full of ties. Under 5.0.0 lines of one pixel vanish or triple, and the
#            same seed gives other masks than under 4.14.
# Fails if a row changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip=("$folder/venv/bin/pip" --quiet --disable-pip-version-check)
"${pip[@]}" install numpy==2.2.6

cat > "$folder/warp.py" <<'PYTHON'
import cv2
import numpy as np

labels = np.tile(np.arange(8, dtype=np.uint8), (8, 1))
same = dict(flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
moved = cv2.warpAffine(labels, np.float32([[1, 0, 0.5], [0, 1, 0]]), (8, 8), **same)
wider = cv2.warpAffine(labels, np.float32([[2, 0, 0], [0, 1, 0]]), (16, 8), **same)
columns, rows = np.meshgrid(np.arange(8, dtype=np.float32), np.arange(8, dtype=np.float32))
remapped = cv2.remap(labels, columns + 0.5, rows, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
resized = cv2.resize(labels, (16, 8), interpolation=cv2.INTER_NEAREST)
for name, image in (('moved', moved), ('wider', wider), ('remap', remapped), ('resize', resized)):
    print(cv2.__version__, name, *image[0])
PYTHON

for release in 4.14.0.94 5.0.0.93; do
    "${pip[@]}" install "opencv-python-headless==$release"
    "$folder/venv/bin/python" "$folder/warp.py"
done | tee "$folder/seen.txt"

diff - "$folder/seen.txt" <<'EXPECTED' || { echo 'the behaviour has changed' >&2; exit 1; }
4.14.0 moved 0 1 2 3 4 5 6 7
4.14.0 wider 0 1 1 2 2 3 3 4 4 5 5 6 6 7 7 7
4.14.0 remap 0 2 2 4 4 6 6 7
4.14.0 resize 0 0 1 1 2 2 3 3 4 4 5 5 6 6 7 7
5.0.0 moved 0 0 2 2 4 4 6 6
5.0.0 wider 0 0 1 2 2 2 3 4 4 4 5 6 6 6 7 7
5.0.0 remap 0 2 2 4 4 6 6 7
5.0.0 resize 0 0 1 1 2 2 3 3 4 4 5 5 6 6 7 7
EXPECTED
echo 'as described'
