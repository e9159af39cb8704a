#!/usr/bin/env bash
# MMPose: the targets of associative embedding do not reach the head, and its heatmap loss refuses them.
#
# Versions:  mmpose 1.3.2, mmcv-lite 2.1.0, mmengine 0.10.7, torch 2.11.0
# Input:     two people of three joints, all visible, in an image of 64 x 64, sent through the transforms
#            GenerateTarget, with MMPose's own codec AssociativeEmbedding, and PackPoseInputs. The heatmaps
#            and weights of the packed sample then go to KeypointMSELoss(use_target_weight=True), the loss
#            that MMPose's config of associative embedding names.
# Seen:      the codec returns keypoint_indices, where the tags of each person are read. The packed sample has
#            keypoint_weights and heatmaps alone: PackPoseInputs takes what the codec's mapping tables
#            name, and those of this codec are empty. AssociativeEmbeddingHead.loss reads
#            gt_instance_labels.keypoint_indices.
#            The weights are (people, joints), (2, 3). The loss takes (images, joints) and raises
#            "target_weights and target have mismatched shapes".
# Matters:   the only config of associative embedding that MMPose has comes with an empty training pipeline.
#            Whoever writes the pipeline from the parts at hand cannot train: the codec needs a
#            label_mapping_table, and the loss weights per image.
# Only the files of the transforms and the loss are executed: the rest needs mmcv's compiled operators.
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
import types
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

root = Path(find_spec('mmpose').origin).parent
for name in ('datasets', 'datasets.transforms', 'models', 'models.losses', 'models.utils'):
    package = types.ModuleType(f'mmpose.{name}')
    package.__path__ = [str(root.joinpath(*name.split('.')))]
    sys.modules[f'mmpose.{name}'] = package
transforms = 'mmpose.datasets.transforms'
generate = import_module(f'{transforms}.common_transforms').GenerateTarget(
    encoder=dict(
        type='AssociativeEmbedding',
        input_size=(64, 64),
        heatmap_size=(16, 16),
        sigma=1,
        decode_keypoint_order=[0, 1, 2],
    )
)
pack = import_module(f'{transforms}.formatting').PackPoseInputs()
loss = import_module('mmpose.models.losses.heatmap_loss').KeypointMSELoss(use_target_weight=True)

people = np.array([[[8, 8], [20, 8], [8, 30]], [[40, 40], [52, 40], [40, 60]]], np.float32)
results = generate(
    dict(
        img=np.zeros((64, 64, 3), np.uint8),
        img_shape=(64, 64),
        keypoints=people,
        transformed_keypoints=people,
        keypoints_visible=np.ones((2, 3), np.float32),
        dataset_keypoint_weights=np.ones(3, np.float32),
    )
)
made = 'keypoint_indices' in results
sample = pack(results)['data_samples']
packed = sorted(sample.gt_instance_labels.keys()) + sorted(sample.gt_fields.keys())
print(f'the codec makes keypoint_indices: {made}; packed: {packed}')
heatmaps = sample.gt_fields.heatmaps[None]
weights = sample.gt_instance_labels.keypoint_weights
try:
    loss(torch.zeros_like(heatmaps), heatmaps, weights)
    message = ''
except AssertionError as error:
    message = str(error)
print(f'weights {tuple(weights.shape)}, heatmaps {tuple(heatmaps.shape)}: {message}')
as_seen = made and packed == ['keypoint_weights', 'heatmaps'] and 'mismatched shapes' in message
sys.exit(print('as described') if as_seen else 'the behaviour has changed')
PYTHON
