#!/usr/bin/env bash
# OpenCV 5 turns WebP by its EXIF tag and OpenCV 4 does not; TIFF is turned whatever the flags say.
#
# Versions:  opencv-python-headless 4.14.0.94 and 5.0.0.93, numpy 2.4.6, pillow 13.0.0
# Input:     an image of 40 x 20 px (width x height) with EXIF orientation 6 (a quarter turn), written by
#            Pillow as JPEG, PNG, WebP and TIFF; decoded with IMREAD_COLOR and with IMREAD_UNCHANGED.
# Seen:      width x height of the decoded image
#                      OpenCV 4: COLOR, UNCHANGED     OpenCV 5: COLOR, UNCHANGED
#              JPEG            20x40, 40x20                     20x40, 40x20
#              PNG             20x40, 40x20                     20x40, 40x20
#              WebP            40x20, 40x20                     20x40, 40x20
#              TIFF            20x40, 20x40                     20x40, 20x40
#            Pillow opens JPEG, PNG and WebP as 40x20, and TIFF as 20x40: there it has turned
#            already, so that code which turns by the tag itself turns twice.
# Matters:   boxes that were drawn on a WebP under OpenCV 4 lie beside their objects under OpenCV 5, though
#            neither file nor code changed. A size read with Pillow and the tag is wrong for TIFF.
# Fails if any of these sizes changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip=("$folder/venv/bin/pip" --quiet --disable-pip-version-check)
"${pip[@]}" install numpy==2.4.6 pillow==13.0.0 opencv-python-headless==4.14.0.94

cat > "$folder/write.py" <<'PYTHON'
import sys

from PIL import Image

tag = Image.Exif()
tag[0x0112] = 6
for kind in ('jpeg', 'png', 'webp', 'tiff'):
    path = f'{sys.argv[1]}/turned.{kind}'
    Image.new('RGB', (40, 20)).save(path, exif=tag)
    with Image.open(path) as image:
        print(f'{kind:4} pillow {image.width}x{image.height}')
PYTHON

cat > "$folder/read.py" <<'PYTHON'
import sys

import cv2

for kind in ('jpeg', 'png', 'webp', 'tiff'):
    sizes = []
    for flags in (cv2.IMREAD_COLOR, cv2.IMREAD_UNCHANGED):
        height, width = cv2.imread(f'{sys.argv[1]}/turned.{kind}', flags).shape[:2]
        sizes.append(f'{width}x{height}')
    print(f'{kind:4} opencv {cv2.__version__[0]} {" ".join(sizes)}')
PYTHON

{
    "$folder/venv/bin/python" "$folder/write.py" "$folder"
    "$folder/venv/bin/python" "$folder/read.py" "$folder"
    "${pip[@]}" install opencv-python-headless==5.0.0.93
    "$folder/venv/bin/python" "$folder/read.py" "$folder"
} | tee "$folder/seen.txt"

diff - "$folder/seen.txt" <<'EXPECTED' || { echo 'the behaviour has changed' >&2; exit 1; }
jpeg pillow 40x20
png  pillow 40x20
webp pillow 40x20
tiff pillow 20x40
jpeg opencv 4 20x40 40x20
png  opencv 4 20x40 40x20
webp opencv 4 40x20 40x20
tiff opencv 4 20x40 20x40
jpeg opencv 5 20x40 40x20
png  opencv 5 20x40 40x20
webp opencv 5 20x40 40x20
tiff opencv 5 20x40 20x40
EXPECTED
echo 'as described'
