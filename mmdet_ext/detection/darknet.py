"""Conversion of Darknet's file of weights of YOLOv4 to a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mmdet.registry import MODELS
from mmengine.registry import DefaultScope

from mmdet_ext.compat.weights import ConversionError
from mmdet_ext.detection.detectors.yolov4 import YOLOV4
from mmdet_ext.engine.configs import read_config
from mmdet_ext.engine.errors import InputError, explained
from mmdet_ext.utils.files import whole_file
from mmdet_ext.version import __version__


def convert_darknet(config: Path, source: Path, out: Path) -> str:
    """Convert a file such as ``yolov4.weights`` to a checkpoint in MMEngine's form.

    Args:
        config: Config whose model is a `YOLOV4` with as many classes as the file.
        source: The file of weights.
        out: The checkpoint to write.

    Returns:
        What was converted, in a line.

    Raises:
        ConversionError: If the config cannot be read or built, the model is another, the file has
            another length, or ``out`` is the source.
        OSError: If a file cannot be read.
    """
    if out.resolve() == source.resolve():
        raise ConversionError(f'{out} would be written over what is read: name another file')
    try:
        with (
            DefaultScope.overwrite_default_scope('mmdet'),
            explained(f'cannot build the model of {config}'),
        ):
            model = MODELS.build(read_config(config).model)
    except InputError as error:
        raise ConversionError(str(error)) from error
    if not isinstance(model, YOLOV4):
        raise ConversionError(
            f'{config} has a {type(model).__name__}, expected the detector mmdet_ext.YOLOV4'
        )
    seen = model.load_darknet(source)
    meta: dict[str, Any] = {
        'source': 'darknet',
        'source_file': source.name,
        'seen': seen,
        'mmdet_ext_version': __version__,
    }
    with whole_file(out) as part:
        torch.save({'meta': meta, 'state_dict': model.state_dict()}, part)
    return (
        f'{out}: {len(model.layers())} convolutions, trained on {seen:,} images, for '
        f'{model.bbox_head.num_classes} classes'
    )
