#!/usr/bin/env bash
# MMPose: decoding associative embedding in UDP form writes logarithms into the heatmaps of the caller.
#
# Versions:  mmpose 1.3.2, mmcv-lite 2.1.0, mmengine 0.10.7, torch 2.11.0
# Input:     one person of three joints, encoded by AssociativeEmbedding with use_udp=True and with False;
#            batch_decode of its heatmaps, and of tags that are 0, as the head calls it.
# Seen:      with use_udp=False the heatmaps stay as they are. With True they are blurred, clipped at 0.001 and
#            replaced by their logarithms, from -6.9 to 0, in place: the refinement works on a view of the
#            tensor in NumPy. A second decoding of the same tensor finds no joint above its threshold.
# Matters:   AssociativeEmbeddingHead.predict decodes before it hands the heatmaps out, so that
#            test_cfg=dict(output_heatmaps=True) returns, draws and stores logarithms. Whoever decodes
#            twice, with two thresholds say, gets no people the second time. Pass a copy.
# Fails if any of this changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip=("$folder/venv/bin/python" -m pip --disable-pip-version-check install --quiet)
"${pip[@]}" mmengine==0.10.7 mmcv-lite==2.1.0 torch==2.11.0 'setuptools<81' scipy packaging munkres
"${pip[@]}" --no-deps mmpose==1.3.2
"$folder/venv/bin/python" -W ignore <<'PYTHON'
import sys

import numpy as np
import torch
from mmpose.codecs import AssociativeEmbedding

person = np.array([[[20, 20], [40, 20], [30, 44]]], np.float32)
kept = {}
for udp in (False, True):
    codec = AssociativeEmbedding(
        input_size=(64, 64),
        heatmap_size=(16, 16),
        sigma=1,
        use_udp=udp,
        decode_keypoint_order=[0, 1, 2],
    )
    heatmaps = torch.from_numpy(codec.encode(person)['heatmaps'])[None]
    before, tags = heatmaps.clone(), torch.zeros_like(heatmaps)
    found = []
    for _ in range(2):
        _, scores, *_ = codec.batch_decode(heatmaps, tags)
        found.append(int((np.concatenate(scores) > 0.1).sum()) if len(scores[0]) else 0)
    kept[udp] = torch.equal(heatmaps, before)
    print(
        f'use_udp={udp}: heatmaps unchanged: {kept[udp]}, now from {heatmaps.min():.2f} to '
        f'{heatmaps.max():.2f}; joints above 0.1 in the first and second decoding: {found}'
    )
    if udp:
        lost = found[0] == 3 and found[1] == 0
as_seen = kept[False] and not kept[True] and lost and abs(float(heatmaps.min()) + 6.91) < 0.01
sys.exit(print('as described') if as_seen else 'the behaviour has changed')
PYTHON
