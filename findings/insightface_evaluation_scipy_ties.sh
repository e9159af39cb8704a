#!/usr/bin/env bash
# From SciPy 1.9.2 or 1.9.3 on, interp1d(kind='slinear') refuses equal abscissae, and InsightFace's evaluation stops.
#
# Versions:  scipy 1.9.1 and 1.15.3, numpy 1.23.5, Python 3.10
# Input:     FARs at thresholds as recognition/arcface_torch/eval/verification.py interpolates them
#            (calculate_val): a count over 4,000 thresholds, in which most FARs are equal to their neighbours.
# Seen:      1.9.1    at 0.001: 0.0043333   at 0.0005: 0.004
#            1.15.3   ValueError: Expect x to not have duplicates
# Matters:   the evaluation of lfw.bin, cfp_fp.bin and agedb_30.bin ends in an error under a current SciPy.
#            Where it works, the threshold is interpolated from the last threshold of the FAR below to the
#            first of the FAR above. mmdet_ext.functional.scoring.grid_verification does so by itself.
# Fails if a release behaves otherwise. Needs Python 3.10 (PYTHON names another one that has both wheels).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.10}" -m venv "$folder/venv"
pip=("$folder/venv/bin/pip" --quiet --disable-pip-version-check)

cat > "$folder/ties.py" <<'PYTHON'
import numpy as np
import scipy
from scipy.interpolate import interp1d

far = np.array([0, 0, 0, 0.0005, 0.0005, 0.002, 0.5, 1, 1, 1])
thresholds = np.arange(10) * 0.001
try:
    at = interp1d(far, thresholds, kind='slinear')
    print(scipy.__version__, f'{float(at(0.001)):.7f} {float(at(0.0005)):.7f}')
except ValueError as error:
    print(scipy.__version__, error)
PYTHON

for release in 1.9.1 1.15.3; do
    "${pip[@]}" install numpy==1.23.5 "scipy==$release"
    "$folder/venv/bin/python" -W ignore "$folder/ties.py"
done | tee "$folder/seen.txt"

diff - "$folder/seen.txt" <<'EXPECTED' || { echo 'the behaviour has changed' >&2; exit 1; }
1.9.1 0.0043333 0.0040000
1.15.3 Expect x to not have duplicates
EXPECTED
echo 'as described'
