#!/usr/bin/env bash
# torch: in float16, normalize and cosine_similarity give NaN for a zero vector, and 0 for a long one.
#
# Versions:  torch 2.11.0, on the CPU
# Input:     feature vectors of zeros (what a ReLU layer gives for an image that excites nothing), of 1e-8,
#            and of length 512 with all values 4000; none of them infinite or NaN.
# Seen:      float16: normalize(zeros) is NaN in values and in the gradient, cosine_similarity(zeros, ones)
#            and cosine_embedding_loss too. The default eps, 1e-12 and 1e-8, exist to prevent the division
#            by zero, but float16 has no number between 0 and 6e-8, so that both become 0.
#            normalize(4000, ...) is all zeros, and the cosine of this vector with itself is 0 where 1 is
#            right: its length overflows to infinity before it divides.
#            bfloat16 and float32: all finite; zeros give 0, and the cosine with itself is 1.
# Matters:   an embedding network that was cast with .half() for inference gives NaN or unrelated
#            similarities for single images, and one NaN in a gallery spoils the sorting of all.
# Fails if any of these results changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.11.0 numpy==2.4.6
"$folder/venv/bin/python" <<'PYTHON'
import sys

import torch
from torch.nn import functional


def results(dtype):
    zeros = torch.zeros(1, 512, dtype=dtype, requires_grad=True)
    ones = torch.ones(1, 512, dtype=dtype)
    long = torch.full((1, 512), 4000.0, dtype=dtype)
    tiny = torch.full((1, 512), 1e-8, dtype=dtype)
    unit = functional.normalize(zeros)
    unit.sum().backward()
    return {
        'normalize(zeros)': unit[0, 0].item(),
        'its gradient is finite': bool(zeros.grad.isfinite().all()),
        'normalize(1e-8) is finite': bool(functional.normalize(tiny).isfinite().all()),
        'cosine(zeros, ones)': functional.cosine_similarity(zeros, ones).item(),
        'normalize(4000) has length': round(functional.normalize(long).float().norm().item(), 2),
        'cosine(4000, 4000)': round(functional.cosine_similarity(long, long).item(), 2),
    }


expected = {
    torch.float16: ('nan', 'False', 'False', 'nan', '0.0', '0.0'),
    torch.bfloat16: ('0.0', 'True', 'True', '0.0', '1.0', '1.0'),
    torch.float32: ('0.0', 'True', 'True', '0.0', '1.0', '1.0'),
}
changed = False
for dtype, wanted in expected.items():
    found = results(dtype)
    print(dtype, found)
    changed |= tuple(map(str, found.values())) != wanted
sys.exit('the behaviour has changed' if changed else print('as described'))
PYTHON
