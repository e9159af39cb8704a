"""Detector of a config file, built for inspection."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.runner import load_checkpoint

from mmdet_ext.engine.errors import InputError, explained


def build_detector(name: str, config: Config, seed: int) -> Any:
    """Build the detector of a config in training mode, with untrained weights of a seed.

    Args:
        name: name of the config, for messages.
        config: config with a ``model``. Nothing that it calls pretrained is downloaded.
        seed: seed of the weights.

    Raises:
        InputError: if it cannot be built.
    """
    torch.manual_seed(seed)
    if not config.get('model'):
        raise InputError(f'the config {name} has no model')
    for part in (config.model, config.model.get('backbone') or {}):
        if _is_pretrained(part.get('init_cfg')):
            part['init_cfg'] = None
    with explained(f'cannot build the model of {name}'):
        model = MODELS.build(config.model)
        model.init_weights()
    return model.train()


def _is_pretrained(init_cfg: Any) -> bool:
    """Return whether a config of initial weights, or one of several, names a checkpoint."""
    several = init_cfg if isinstance(init_cfg, (list, tuple)) else [init_cfg or {}]
    kinds = [each.get('type') for each in several]
    # A text with or without path, or a class.
    names = {str(getattr(kind, '__name__', kind)).rpartition('.')[2] for kind in kinds}
    return not names.isdisjoint({'Pretrained', 'PretrainedInit'})


def load_weights(model: Any, name: str, path: Path) -> str:
    """Load a checkpoint into a detector.

    Args:
        model: the detector.
        name: name of its config, for messages.
        path: the checkpoint.

    Returns:
        str: a warning if the checkpoint lacks some weights, otherwise an empty string.

    Raises:
        InputError: if it is no checkpoint, or has no weight of this detector.
    """
    if not path.is_file():
        raise InputError(f'no such checkpoint: {path}')
    wanted = {key: value.shape for key, value in model.state_dict().items()}
    with explained(f'cannot load the checkpoint {path}'):
        loaded = load_checkpoint(model, str(path), map_location='cpu', logger='silent')
        given = loaded.get('state_dict', loaded)
        shapes = {k.removeprefix('module.'): getattr(v, 'shape', None) for k, v in given.items()}
    fitting = sum(shapes.get(key) == shape for key, shape in wanted.items())
    if not fitting:
        raise InputError(
            f'the checkpoint {path} has none of the {len(wanted)} weights of {name}: it is of '
            f'another model. Its first are {", ".join(list(shapes)[:3]) or "none"}; wanted are '
            f'{", ".join(list(wanted)[:3])}'
        )
    if fitting == len(wanted):
        return ''
    return (
        f'the checkpoint {path} has {fitting} of the {len(wanted)} weights of {name}; the others '
        'are untrained'
    )
