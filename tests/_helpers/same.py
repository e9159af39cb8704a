"""Equality of the contents of checkpoints."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer


def assert_same(a: Any, b: Any, path: str = '') -> None:
    """Assert equal types and values, of tensors and arrays bit by bit.

    Args:
        a: Content of a checkpoint.
        b: Content to compare with.
        path: Keys that lead to the content, for the message.
    """
    assert type(a) is type(b), path
    if isinstance(a, HistoryBuffer):
        assert a.max_length == b.max_length, path
        assert a.statistics('mean') == b.statistics('mean'), path
        assert_same(a.data, b.data, path)
    elif isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype and torch.equal(a, b), path
    elif isinstance(a, (np.ndarray, np.generic)):
        assert a.dtype == b.dtype and a.shape == b.shape, path
        assert a.tobytes() == b.tobytes(), path
    elif isinstance(a, dict):
        assert list(a) == list(b), path
        for key in a:
            assert_same(a[key], b[key], f'{path}.{key}')
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), path
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f'{path}.{i}')
    else:
        assert a == b, path
