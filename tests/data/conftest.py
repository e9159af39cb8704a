"""Fixtures of the tests of detection data: an empty VOC folder, a folder for files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.coco.voc_builder import Voc


@pytest.fixture
def voc(tmp_path: Path) -> Voc:
    """Make an empty VOC folder."""
    return Voc(tmp_path / 'voc')


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Return a folder for COCO files that does not exist yet."""
    return tmp_path / 'out'
