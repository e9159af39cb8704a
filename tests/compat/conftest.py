"""Fixtures of the tests of checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmdet_ext.compat.checkpoint import install_safe_loading
from tests.compat.checkpoint_files import train_stock


@pytest.fixture(autouse=True)
def installed() -> None:
    """Install the safe loading, as the registry does."""
    install_safe_loading()


@pytest.fixture(scope='module')
def stock_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a checkpoint with a stock runner."""
    return train_stock(tmp_path_factory.mktemp('stock'))
