#!/usr/bin/env bash
# mmsegmentation: with one output channel, DiceLoss trains the background in place of the object.
#
# Versions:  mmsegmentation 1.2.2, mmcv-lite 2.1.0, mmengine 0.10.7, torch 2.11.0
# Input:     a binary mask of 16 x 16 with an object of 8 x 8, labels 0 and 1, and logits (1, 1, 16, 16), as
#            a decode head with num_classes=2 and out_channels=1 gives them. 200 steps of SGD on the
#            logits by one loss. The mask is then predicted as the segmentor does it:
#            sigmoid(logit) > threshold, 0.3 by default.
# Seen:      the IoU of the object is 1.0 after CrossEntropyLoss(use_sigmoid=True), and 0.0 after DiceLoss in
#            either form: every pixel is on the wrong side, and the loss is below 0.05.
#            TverskyLoss changes no logit: the softmax of one channel is 1 everywhere.
#            Labels become one-hot with as many channels as logits: of one channel, that of the label 0
#            is left, so that 1 stands for background. Where Dice and cross entropy are summed, the two
#            pull in opposite directions.
# Matters:   out_channels=1 with a sigmoid is a documented way of binary segmentation, and Dice the usual
#            loss there (medical images, cracks, roads). Labels in the shape of the logits are not
#            affected, but decode heads do not give such labels.
# Only the files of the losses are executed: the rest of mmseg.models needs mmcv's compiled operators.
# Fails if any of these figures changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip=("$folder/venv/bin/python" -m pip --disable-pip-version-check install --quiet)
"${pip[@]}" mmengine==0.10.7 mmcv-lite==2.1.0 torch==2.11.0 'setuptools<81' ftfy regex packaging
"${pip[@]}" --no-deps mmsegmentation==1.2.2
"$folder/venv/bin/python" -W ignore <<'PYTHON'
import sys
import types
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import torch

root = Path(find_spec('mmseg').origin).parent
for name in ('mmseg.models', 'mmseg.models.losses'):
    package = types.ModuleType(name)
    package.__path__ = [str(root.joinpath(*name.split('.')[1:]))]
    sys.modules[name] = package
losses = {
    name: getattr(import_module(f'mmseg.models.losses.{module}'), name)
    for name, module in (
        ('CrossEntropyLoss', 'cross_entropy_loss'),
        ('DiceLoss', 'dice_loss'),
        ('TverskyLoss', 'tversky_loss'),
    )
}

label = torch.zeros(1, 16, 16, dtype=torch.long)
label[:, 4:12, 4:12] = 1


def train(name, **options):
    """Return the IoU of the object, the loss, and whether a logit has changed."""
    loss = losses[name](**options)
    torch.manual_seed(0)
    start = 0.1 * torch.randn(1, 1, 16, 16)
    logits = start.clone().requires_grad_()
    optimizer = torch.optim.SGD([logits], lr=100.0)
    for _ in range(200):
        optimizer.zero_grad()
        value = loss(logits, label, ignore_index=255)
        value.backward()
        optimizer.step()
    found = logits.detach().sigmoid() > 0.3
    object_mask = label[:, None] == 1
    iou = (found & object_mask).sum() / (found | object_mask).sum()
    return round(float(iou), 2), round(float(value), 2), bool((logits != start).any())


seen = {
    'CrossEntropyLoss': train('CrossEntropyLoss', use_sigmoid=True),
    'DiceLoss': train('DiceLoss'),
    'DiceLoss, naive': train('DiceLoss', naive_dice=True),
    'TverskyLoss': train('TverskyLoss'),
}
for name, (iou, value, changed) in seen.items():
    print(f'{name}: IoU {iou}, loss {value}, logits changed: {changed}')
learned = seen['CrossEntropyLoss'][0] == 1.0
inverted = all(seen[name][0] == 0.0 for name in ('DiceLoss', 'DiceLoss, naive'))
small = all(seen[name][1] < 0.05 for name in seen)
as_seen = learned and inverted and small and not seen['TverskyLoss'][2]
sys.exit(print('as described') if as_seen else 'the behaviour has changed')
PYTHON
