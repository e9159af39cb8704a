"""Recognisers of a config and a checkpoint that embed image files, as those of an exported file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.dataset import Compose

from mmdet_ext.engine.configs import test_pipeline
from mmdet_ext.face.embeddings import embeddings_of
from mmdet_ext.face.export import load_recogniser


class ConfigEmbedder:
    """Recogniser of a config and a checkpoint: image files to embeddings, by the test pipeline.

    Args:
        config: with a model that has our `MarginHead`, and a ``test_dataloader`` (or
            ``val_dataloader``) with a pipeline.
        checkpoint: file of its weights.

    Raises:
        ValueError: if the config has no pipeline, or the weights do not fit.
        OSError: if the file cannot be read.
    """

    def __init__(self, config: Config, checkpoint: Path) -> None:
        pipeline = test_pipeline(config)
        if not pipeline:
            raise ValueError('the config has no test_dataloader.dataset.pipeline to read images by')
        self.model = load_recogniser(config, checkpoint)
        self.pipeline = Compose(pipeline)

    def embed(self, images: Sequence[Path]) -> np.ndarray:
        """Compute embeddings (N, D) of N image files.

        Raises:
            ValueError, OSError: if an image cannot be read.
        """
        data = [self.pipeline({'img_path': str(image), 'gt_label': 0}) for image in images]
        return embeddings_of(self.model, data, range(len(data)))[0]
