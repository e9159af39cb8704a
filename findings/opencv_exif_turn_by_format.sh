#!/usr/bin/env bash
# The EXIF turn hangs on format, OpenCV release and function: WebP is turned from 4.13 on, TIFF always.
#
# Versions:  opencv-python-headless 4.12.0.88, 4.13.0.92 and 5.0.0.93, numpy 2.2.6, pillow 13.0.0
# Input:     an image of 40 x 20 px (width x height) with EXIF orientation 6 (a quarter turn), written by
#            Pillow as JPEG, PNG, WebP and TIFF.
# Seen:      width x height that OpenCV gives
#                    imdecode, COLOR    imdecode, UNCHANGED    imread, COLOR
#              JPEG            20x40             40x20             20x40
#              PNG             20x40             40x20             20x40
#              WebP, 4.12      40x20             40x20             40x20
#              WebP, newer     20x40             40x20             20x40
#              TIFF            20x40             20x40             None, with an internal error in the log
#            Pillow opens JPEG, PNG and WebP as 40x20, and TIFF as 20x40: it has turned that already, so
#            that code which turns by the tag itself turns twice.
# Matters:   boxes that were drawn on a WebP under OpenCV 4.12 lie beside their objects under 4.13, though
#            neither file nor code changed. A size read with Pillow and the tag is wrong for TIFF.
#            A turned TIFF that a training reads (mmcv decodes bytes) is unreadable to imread.
# Fails if any of these sizes changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip=("$folder/venv/bin/pip" --quiet --disable-pip-version-check)
"${pip[@]}" install numpy==2.2.6 pillow==13.0.0

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
import numpy as np


def size(image):
    return 'None' if image is None else f'{image.shape[1]}x{image.shape[0]}'


for kind in ('jpeg', 'png', 'webp', 'tiff'):
    path = f'{sys.argv[1]}/turned.{kind}'
    content = np.fromfile(path, np.uint8)
    sizes = [
        size(cv2.imdecode(content, cv2.IMREAD_COLOR)),
        size(cv2.imdecode(content, cv2.IMREAD_UNCHANGED)),
        size(cv2.imread(path, cv2.IMREAD_COLOR)),
    ]
    print(f'{kind:4} opencv {cv2.__version__} {" ".join(sizes)}')
PYTHON

{
    "$folder/venv/bin/python" "$folder/write.py" "$folder"
    for release in 4.12.0.88 4.13.0.92 5.0.0.93; do
        "${pip[@]}" install "opencv-python-headless==$release"
        "$folder/venv/bin/python" "$folder/read.py" "$folder" 2> "$folder/log.txt"
    done
} | tee "$folder/seen.txt"

diff - "$folder/seen.txt" <<'EXPECTED' || { echo 'the behaviour has changed' >&2; exit 1; }
jpeg pillow 40x20
png  pillow 40x20
webp pillow 40x20
tiff pillow 20x40
jpeg opencv 4.12.0 20x40 40x20 20x40
png  opencv 4.12.0 20x40 40x20 20x40
webp opencv 4.12.0 40x20 40x20 40x20
tiff opencv 4.12.0 20x40 20x40 None
jpeg opencv 4.13.0 20x40 40x20 20x40
png  opencv 4.13.0 20x40 40x20 20x40
webp opencv 4.13.0 20x40 40x20 20x40
tiff opencv 4.13.0 20x40 20x40 None
jpeg opencv 5.0.0 20x40 40x20 20x40
png  opencv 5.0.0 20x40 40x20 20x40
webp opencv 5.0.0 20x40 40x20 20x40
tiff opencv 5.0.0 20x40 20x40 None
EXPECTED
echo 'as described'
