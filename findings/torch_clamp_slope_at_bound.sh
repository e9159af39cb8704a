#!/usr/bin/env bash
# torch 2.14 changed the slope of clamp at its bound from 1 to 0; an IoU loss of touching boxes loses it.
#
# Versions:  torch 2.13.0 and 2.14.1 on the CPU, numpy 2.4.6
# Input:     values that lie exactly on a bound, and two boxes that share an edge, (0, 0, 4, 4) and
#            (4, 0, 8, 4), for which 1 - intersection / union is differentiated, with the intersection
#            from sides clamped at 0, as most IoU losses have it.
# Seen:                                         2.13.0    2.14.1
#              clamp(min=0) at 0                  1         0
#              clamp(max=1) at 1                  1         0
#              clamp(min=tensor) at the bound     1         0.5
#              fmax with an equal tensor          1         0.5
#              maximum with an equal tensor       0.5       0.5
#              relu at 0                          0         0
#            slope of the loss at the touching edge of the first box
#              with clamp(min=0)                 -0.125     0
#              with maximum and zeros            -0.0625   -0.0625
# Matters:   boxes on whole pixels touch often: anchors of one cell and the next, labels of objects
#            side by side. There the same code gives another gradient after an update, and with
#            clamp(min=0) none at all, so that the box is not drawn over its target.
# Fails if any of these slopes changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/slopes.py" <<'PYTHON'
import torch


def slope(function, at):
    value = torch.tensor(at, requires_grad=True)
    function(value).backward()
    return value.grad.item()


def loss(edge, not_negative):
    width = torch.minimum(edge, torch.tensor(8.0)) - 4.0
    intersection = not_negative(width) * 4.0
    union = edge * 4.0 + 16.0 - intersection
    return 1 - intersection / union


zero, one = torch.tensor(0.0), torch.tensor(1.0)
print(f'clamp(min=0) at 0: {slope(lambda x: x.clamp(min=0), 0.0):g}')
print(f'clamp(max=1) at 1: {slope(lambda x: x.clamp(max=1), 1.0):g}')
print(f'clamp(min=tensor) at the bound: {slope(lambda x: x.clamp(min=zero), 0.0):g}')
print(f'fmax with an equal tensor: {slope(lambda x: torch.fmax(x, one), 1.0):g}')
print(f'maximum with an equal tensor: {slope(lambda x: torch.maximum(x, one), 1.0):g}')
print(f'relu at 0: {slope(torch.relu, 0.0):g}')
print(f'IoU loss, clamp(min=0): {slope(lambda e: loss(e, lambda w: w.clamp(min=0)), 4.0):g}')
print(f'IoU loss, maximum: {slope(lambda e: loss(e, lambda w: torch.maximum(w, zero)), 4.0):g}')
PYTHON

check() {  # the torch release; what it is expected to print comes on stdin
    python3 -m venv --clear "$folder/venv"
    "$folder/venv/bin/pip" install --quiet --disable-pip-version-check "torch==$1" numpy==2.4.6
    "$folder/venv/bin/python" "$folder/slopes.py" | tee "$folder/seen.txt" | sed "s/^/torch $1  /"
    diff - "$folder/seen.txt" || { echo "the behaviour of torch $1 has changed" >&2; exit 1; }
}

check 2.13.0 <<'EXPECTED'
clamp(min=0) at 0: 1
clamp(max=1) at 1: 1
clamp(min=tensor) at the bound: 1
fmax with an equal tensor: 1
maximum with an equal tensor: 0.5
relu at 0: 0
IoU loss, clamp(min=0): -0.125
IoU loss, maximum: -0.0625
EXPECTED
check 2.14.1 <<'EXPECTED'
clamp(min=0) at 0: 0
clamp(max=1) at 1: 0
clamp(min=tensor) at the bound: 0.5
fmax with an equal tensor: 0.5
maximum with an equal tensor: 0.5
relu at 0: 0
IoU loss, clamp(min=0): 0
IoU loss, maximum: -0.0625
EXPECTED
echo 'as described'
