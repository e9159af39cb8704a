"""Embeddings of images by a model, computed without a trace on its training."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from torch import nn


@torch.no_grad()
def embeddings_of(
    model: nn.Module, dataset: Any, index: Sequence[int], batch: int = 64
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the embeddings that the model returns at test.

    Args:
        model: without a distributed wrapper, in evaluation mode.
        dataset: data set of the images.
        index: indices of the images in it, N of them.
        batch: images per batch.

    Returns:
        tuple: embeddings (N, D) and labels (N,).

    Raises:
        ValueError: if the model writes no ``embedding``.
    """
    points, labels = [], []
    for start in range(0, len(index), batch):
        data = pseudo_collate([dataset[place] for place in index[start : start + batch]])
        for sample in model.test_step(data):  # type: ignore[operator]
            if 'embedding' not in sample:
                raise ValueError(
                    f'{type(model).__name__} wrote no embedding onto its data samples: '
                    "FeatureScatterHook wants head=dict(type='mmdet_ext.MarginHead', ...)"
                )
            points.append(sample.embedding.float().cpu().numpy())
            labels.append(int(sample.gt_label))
    return np.stack(points), np.array(labels, np.int64)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, and restore the mode of each module afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def untouched_random_state() -> Iterator[None]:
    """Restore the random states of Python, NumPy and torch afterwards."""
    python, arrays, processor = random.getstate(), np.random.get_state(), torch.get_rng_state()
    accelerator = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(arrays)
        torch.set_rng_state(processor)
        if accelerator is not None:
            torch.cuda.set_rng_state(accelerator)


def seed_all(seed: int) -> None:
    """Seed the random numbers of Python, NumPy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(seed)
