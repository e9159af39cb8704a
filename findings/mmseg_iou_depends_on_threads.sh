#!/usr/bin/env bash
# mmsegmentation: on images above 16.8 megapixels, IoUMetric's figures hang on the number of threads.
#
# Versions:  mmsegmentation 1.2.2, mmcv-lite 2.1.0, mmengine 0.10.7, torch 2.11.0, on a CPU
# Input:     a label map of 5000 x 5000 px of class 0, predicted as class 1 in 2000 of its rows.
# Seen:      IoU of class 0: 0.600 with two threads, which is right, and 0.894 with one.
#            IoUMetric counts by torch.histc, which adds 1 to float32 numbers: each thread stops at 2^24 =
#            16,777,216 pixels of a class. One thread counts the 25,000,000 pixels of the ground truth as
#            16,777,216, two threads count 12,500,000 each.
# Matters:   aerial images and slides of pathology have such sizes. torchrun starts its processes with one
#            thread each, so that the same checkpoint scores higher there than in a run of one process.
# Fails if one of the figures changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip=("$folder/venv/bin/python" -m pip --disable-pip-version-check install --quiet)
"${pip[@]}" mmengine==0.10.7 mmcv-lite==2.1.0 torch==2.11.0 'setuptools<81' ftfy regex packaging
"${pip[@]}" --no-deps mmsegmentation==1.2.2
"${pip[@]}" prettytable

cat > "$folder/count.py" <<'PYTHON'
import sys
import types
from importlib import import_module

import mmseg
import torch

# The other metrics import mmcv's compiled operators: only this file is executed.
package = types.ModuleType('mmseg.evaluation')
package.__path__ = [f'{mmseg.__path__[0]}/evaluation']
metrics = types.ModuleType('mmseg.evaluation.metrics')
metrics.__path__ = [f'{mmseg.__path__[0]}/evaluation/metrics']
sys.modules.update({package.__name__: package, metrics.__name__: metrics})
count = import_module('mmseg.evaluation.metrics.iou_metric').IoUMetric.intersect_and_union

label = torch.zeros(5000, 5000, dtype=torch.int64)
predicted = label.clone()
predicted[:2000] = 1
for threads in (1, 2):
    torch.set_num_threads(threads)
    intersection, union, _, truth = count(predicted, label, 2, 255)
    print(f'threads {threads}: truth {truth[0]:.0f}, IoU {intersection[0] / union[0]:.3f}')
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/count.py" | tee "$folder/seen.txt"

diff - "$folder/seen.txt" <<'EXPECTED' || { echo 'the behaviour has changed' >&2; exit 1; }
threads 1: truth 16777216, IoU 0.894
threads 2: truth 25000000, IoU 0.600
EXPECTED
echo 'as described'
