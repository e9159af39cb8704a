"""Reading of configs and checkpoints of the hosts, for detectors and recognisers alike."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from mmdet_ext.compat.layouts import grouped_keys
from mmdet_ext.export.onnx_file import ExportError

#: mmcv's name of an interpolation -> OpenCV's.
INTERPOLATIONS = {
    'nearest': 'nearest',
    'bilinear': 'linear',
    'bicubic': 'cubic',
    'area': 'area',
    'lanczos': 'lanczos4',
}


def interpolation_of(transform: Mapping[str, Any]) -> str:
    """Return OpenCV's name of the interpolation of a ``Resize``, in small letters.

    Args:
        transform: config of the transform.

    Raises:
        ExportError: if OpenCV has no such interpolation.
    """
    name = transform.get('interpolation', 'bilinear')
    if name not in INTERPOLATIONS:
        raise ExportError(
            f'Resize of the test pipeline has interpolation={name!r}, expected one of '
            f'{", ".join(INTERPOLATIONS)}'
        )
    return INTERPOLATIONS[name]


def load_all(model: nn.Module, weights: Mapping[str, Any], checkpoint: Path) -> nn.Module:
    """Load weights of which none is missing, unexpected or of another shape.

    Args:
        model: built by the config.
        weights: of the checkpoint, by name.
        checkpoint: the file, for the message.

    Returns:
        Module: the model, in evaluation mode.

    Raises:
        ExportError: if one differs, with what differs in groups.
    """
    lines = grouped_keys(model.state_dict(), weights)
    if lines:
        raise ExportError(
            f'{checkpoint} does not fit the model of the config:\n' + '\n'.join(lines)
        )
    model.load_state_dict(weights)
    return model.eval()
