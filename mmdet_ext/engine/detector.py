"""Network of a config of mmdet that detects in arrays."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import MODELS, init_default_scope

from mmdet_ext.compat.checkpoint import load_from_local
from mmdet_ext.engine.configs import read_config, test_pipeline
from mmdet_ext.engine.errors import InputError
from mmdet_ext.export.sources import load_all

#: Transforms that an array, which has no annotations, does not need.
_LOADING = ('LoadImageFromFile', 'LoadImageFromNDArray', 'LoadAnnotations', 'LoadFace')


class TorchDetector:
    """Detector of a config and a checkpoint, on arrays.

    Args:
        config: path, or what MMEngine read of it.
        checkpoint: file of its weights.
        device: of the network.

    Attributes:
        classes: names of its classes, as the checkpoint or the config states them.

    Raises:
        InputError: if the config has no test pipeline.
        ValueError, OSError: if the config or the weights cannot be used.
    """

    def __init__(self, config: Any, checkpoint: Path, device: str) -> None:
        read: Config = read_config(Path(config)) if isinstance(config, (str, PathLike)) else config
        scope = read.get('default_scope', 'mmdet')
        dataset: Any = (read.get('test_dataloader') or {}).get('dataset') or {}
        steps = test_pipeline(read)
        if not steps:
            raise InputError('the config of the detector has no test_dataloader.dataset.pipeline')
        if not checkpoint.is_file():
            raise FileNotFoundError(f'{checkpoint}: there is no such file')
        init_default_scope(scope)
        content = load_from_local(str(checkpoint), 'cpu')
        weights = content.get('state_dict', content)
        model = MODELS.build(read.model)
        self.model: Any = load_all(model, weights, checkpoint).to(device).eval()
        self.pipeline = Compose([step for step in steps if _kind(step) not in _LOADING])
        stated = content.get('meta', {}).get('dataset_meta') or dataset.get('metainfo') or {}
        self.classes = tuple(stated.get('classes') or ())

    @torch.no_grad()
    def __call__(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Return the fields of the instances of an image, as arrays of N rows."""
        size = image.shape[:2]
        data = self.pipeline({'img': image, 'img_shape': size, 'ori_shape': size, 'img_id': 0})
        (sample,) = self.model.test_step(pseudo_collate([data]))
        return {
            key: value.float().cpu().numpy()
            for key, value in sample.pred_instances.items()
            if isinstance(value, torch.Tensor)
        }


def _kind(step: Any) -> str:
    kind = step['type']
    return str(kind if isinstance(kind, str) else kind.__name__).rpartition('.')[2]
